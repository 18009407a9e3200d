"""Which module gets which quantizer: defaults, and rules by module name for the exceptions."""
from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Optional, Sequence

_ROLES = ('weight_quantizer', 'input_quantizer')


@dataclass(frozen=True)
class Assignment:
    """Quantizer configs of one module; None means float."""

    weight_quantizer: Optional[dict]
    input_quantizer: Optional[dict]

    @property
    def is_float(self) -> bool:
        return self.weight_quantizer is None and self.input_quantizer is None


class QuantizationPolicy:
    """Assigns quantizer configs to modules by name.

    Args:
        weight_quantizer: Default config for weights, None for float.
        input_quantizer: Default config for inputs, None for float.
        rules: Exceptions, applied in order, each on top of what came before. A rule is
            ``dict(pattern=..., weight_quantizer=..., input_quantizer=...)``: a shell pattern
            (``*`` also matches dots) over module names, and for either role a dict whose keys
            override those of the default (a dict with ``type`` replaces it), or None for float. A
            role that the rule does not name keeps what it has.

    Raises:
        ValueError: A rule without a pattern, without an effect or with an unknown key.
    """

    def __init__(self,
                 weight_quantizer: Optional[dict] = None,
                 input_quantizer: Optional[dict] = None,
                 rules: Sequence[dict] = ()) -> None:
        self.default = Assignment(weight_quantizer, input_quantizer)
        self.rules = [_checked(rule, position) for position, rule in enumerate(rules)]

    def assign(self, names: Sequence[str]) -> dict[str, Assignment]:
        """The assignment of each module name.

        Raises:
            ValueError: A rule matches none of the names.
        """
        for rule in self.rules:
            if not any(fnmatchcase(name, rule['pattern']) for name in names):
                raise ValueError(
                    f'quantization.rules: the pattern {rule["pattern"]!r} matches no module that '
                    f'can be quantized. These can: {_abridged(names)}.')
        return {name: self._assignment(name) for name in names}

    def _assignment(self, name: str) -> Assignment:
        assigned = {role: getattr(self.default, role) for role in _ROLES}
        for rule in self.rules:
            if fnmatchcase(name, rule['pattern']):
                for role in _ROLES:
                    if role in rule:
                        assigned[role] = _override(assigned[role], rule[role], rule)
        return Assignment(**assigned)


def _checked(rule: Any, position: int) -> dict:
    where = f'quantization.rules[{position}]'
    if not isinstance(rule, dict) or not isinstance(rule.get('pattern'), str):
        raise ValueError(f'{where}: a rule is a dict with a pattern (a string) and at least one '
                         f'of {", ".join(_ROLES)}, but got {rule!r}.')
    unknown = set(rule) - {'pattern', *_ROLES}
    if unknown:
        raise ValueError(f'{where} ({rule["pattern"]!r}): unknown key(s) '
                         f'{", ".join(sorted(unknown))}; known are pattern, {", ".join(_ROLES)}.')
    if not any(role in rule for role in _ROLES):
        raise ValueError(f'{where} ({rule["pattern"]!r}) says nothing: give weight_quantizer, '
                         'input_quantizer or both.')
    return rule


def _override(base: Optional[dict], change: Optional[dict], rule: dict) -> Optional[dict]:
    if change is None or 'type' in change:
        return change
    if base is None:
        raise ValueError(f'quantization.rules ({rule["pattern"]!r}): {dict(change)} changes a '
                         'quantizer, but the module has none; give its type too.')
    return {**base, **change}


def _abridged(names: Sequence[str], limit: int = 12) -> str:
    shown = ', '.join(list(names)[:limit])
    return shown if len(names) <= limit else f'{shown}, ... ({len(names)} in all)'
