"""The rows of the accuracy study at the size of the BCCD configs."""
from __future__ import annotations

from dataclasses import replace

from study_rows import TWIN_AS_TEACHER, Row, in_batches_of, trained_on


def full_size_rows() -> list[Row]:
    """RetinaNet and FCOS, each row after those that it needs."""
    retinanet = _main_rows('RetinaNet-R18', 'retinanet_r18_fpn_mlbn')
    fcos = _main_rows('FCOS-R18', 'fcos_r18_fpn_mlbn')
    return [*retinanet, *fcos, *_large_batch_rows(retinanet)]


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


def _large_batch_rows(main: list[Row]) -> list[Row]:
    """The main rows of six epochs, in batches as large as in the twelve before."""
    twin, *low_bit = (
        replace(in_batches_of(row, 8), groups=('large_batches', )) for row in main[1:])
    return [twin, *(replace(row, twin=twin.name) for row in low_bit)]
