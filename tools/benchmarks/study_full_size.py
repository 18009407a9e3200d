"""The rows of the accuracy study at the size of the BCCD configs."""
from __future__ import annotations

from dataclasses import replace

from study_rows import (DISTILLED_FROM_LONGER, LONGER_AS_TEACHER, TWIN_AS_TEACHER, Row,
                        in_small_batches, trained_on)


def full_size_rows() -> list[Row]:
    """RetinaNet and FCOS, each row after those that it needs."""
    retinanet = _main_rows('RetinaNet-R18', 'retinanet_r18_fpn_mlbn')
    return [
        *retinanet,
        *_main_rows('FCOS-R18', 'fcos_r18_fpn_mlbn'),
        *_better_taught_rows(retinanet),
        *_small_batch_rows(retinanet),
    ]


def _main_rows(detector: str, stem: str) -> list[Row]:
    twelve = Row(f'{stem}_12e_bccd', f'bccd/{stem}_12e_bccd.py', ('main', ), detector,
                 note='12 epochs')  # yapf: disable
    twin = trained_on(twelve)
    twin = replace(twin, config=f'bccd/{twin.name}.py', overrides={})
    low_bit = [
        Row(f'{stem}-w{bits}a{bits}_6e_bccd',
            f'bccd/{stem}-w{bits}a{bits}_6e_bccd.py', ('main', ),
            detector,
            method='LIQ',
            bits=bits,
            start=twelve.name,
            twin=twin.name) for bits in (4, 3, 2)
    ]
    distilled = [
        replace(
            row,
            name=row.name.replace('_6e_', '-distill_6e_'),
            config=row.config.replace('_6e_', '-distill_6e_'),
            note='distillation',
            overrides=TWIN_AS_TEACHER) for row in low_bit
    ]
    return [twelve, twin, *low_bit, *distilled]


def _better_taught_rows(main: list[Row]) -> list[Row]:
    """The distilled ones of the main rows, their teacher a float model that trained longer."""
    teacher = trained_on(main[0], 24)
    students = [
        replace(
            row,
            name=row.name.replace('-distill_', '-distill-long_'),
            note=DISTILLED_FROM_LONGER,
            overrides=LONGER_AS_TEACHER,
            teacher=teacher.name) for row in main if row.overrides == TWIN_AS_TEACHER
    ]
    return [teacher, *students]


def _small_batch_rows(main: list[Row]) -> list[Row]:
    """The main rows of six epochs in smaller batches: the float row, too."""
    twelve, twin, *low_bit = main
    twin = in_small_batches(twin)
    return [twin, *(replace(in_small_batches(row), twin=twin.name) for row in low_bit)]
