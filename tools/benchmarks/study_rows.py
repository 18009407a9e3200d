"""What a row of the accuracy study is, and the tables that show it."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Optional


@dataclass(frozen=True)
class Group:
    """A table of the report.

    Args:
        title: Its title.
        reference: What the references of its rows are, if they have any.
    """

    title: str
    reference: str = ''


#: The tables of the report, in their order.
GROUPS = dict(
    main=Group('LIQ with multi-level BN, at full size'),
    large_batches=Group('The same RetinaNet with the last six epochs in batches of 8'),
    norms=Group('Normalization of the head, float', 'multi-level BN'),
    methods=Group('Methods, with one BN for all levels and with multi-level BN',
                  'LIQ + multi-level BN'),
    changes=Group('One change at a time, from LIQ with multi-level BN at 2 bits', 'unchanged'),
    post_training=Group('Post-training quantization: intervals from data, no training'),
    mended=Group('Tried to come closer to float', 'unchanged'),
)
FLOAT_BITS = 32
BATCH_SIZE = 'train_dataloader.batch_size'
# An override; ``Row`` says what stands in the braces.
TWIN_AS_TEACHER = {'model.distillation.checkpoint': '{twin}'}


@dataclass(frozen=True)
class Row:
    """One model of the study.

    Args:
        name: Unique name, which is that of its folder.
        config: Path below ``configs``.
        groups: Names of the tables that show it.
        detector: Its detector in the tables.
        method: How it is quantized, ``'float'`` if it is not.
        norm: Normalization of its head.
        bits: Bits of most weights and activations, 32 for float.
        note: What else tells it from the other rows.
        overrides: Dotted keys of the config and their values, in which ``{start}``, ``{twin}`` and
            ``{teacher}`` stand for the last checkpoints of these rows.
        start: Name of the row whose last checkpoint of the same seed it starts from.
        twin: Name of the float row that it is compared with, trained for as many epochs.
        teacher: Name of another float row that it learns from.
        reference: Name of a further row that it is compared with.
        trains: False: only the intervals are started from data, by ``tools/calibrate.py``.
        reestimates_bn: If it does not train, whether it estimates the statistics of BN anew.
    """

    name: str
    config: str
    groups: tuple[str, ...]
    detector: str
    method: str = 'float'
    norm: str = 'multi-level BN'
    bits: int = FLOAT_BITS
    note: str = ''
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    start: Optional[str] = None
    twin: Optional[str] = None
    teacher: Optional[str] = None
    reference: Optional[str] = None
    trains: bool = True
    reestimates_bn: bool = False

    @property
    def label(self) -> str:
        """Method and note, by which tables and plots tell rows apart."""
        return f'{self.method}, {self.note}' if self.note else self.method

    @property
    def needs(self) -> dict[str, str]:
        """Names of the rows whose checkpoints it uses, by what stands for them in ``overrides``."""
        texts = [value for value in self.overrides.values() if isinstance(value, str)]
        found = {name: getattr(self, name) for name in ('start', 'twin', 'teacher')}
        return {
            name: row
            for name, row in found.items()
            if row and (name == 'start' or any(f'{{{name}}}' in text for text in texts))
        }


def trained_on(row: Row, epochs: int = 6) -> Row:
    """The float row that low-bit rows are compared with: it trains as long as they do."""
    return replace(
        row,
        name=row.name.replace('e_bccd', f'e-{epochs}e_bccd'),
        note=f'{row.note.removesuffix(" epochs")} + {epochs} epochs',
        overrides=schedule_of(epochs),
        start=row.name)


def schedule_of(epochs: int) -> dict[str, int]:
    """The schedule of the low-bit configs with another number of epochs."""
    keys = ('train_cfg.max_epochs', 'param_scheduler.1.end', 'param_scheduler.1.T_max')
    return dict.fromkeys(keys, epochs)


def in_batches_of(row: Row, size: int) -> Row:
    """A row whose config has batches of another size."""
    end = '_6e_bccd' if '_6e_bccd' in row.name else '_bccd'
    return replace(
        row,
        name=row.name.replace(end, f'-b{size}{end}'),
        note=', '.join(filter(None, (row.note, f'batches of {size}'))),
        overrides={
            **row.overrides, BATCH_SIZE: size
        })
