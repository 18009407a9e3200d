"""Which module gets which quantizer: defaults, and rules by name or type for the exceptions."""
from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Collection, Mapping, Sequence

ROLES = ('weight_quantizer', 'input_quantizer')
_SELECTORS = ('pattern', 'module_type')


@dataclass(frozen=True)
class Assignment:
    """Quantizer configs of one module; None means float."""

    weight_quantizer: dict | None
    input_quantizer: dict | None

    @property
    def is_float(self) -> bool:
        return self.weight_quantizer is None and self.input_quantizer is None


class QuantizationPolicy:
    """Assigns quantizer configs to modules by name and type.

    Args:
        weight_quantizer: Default config for weights, None for float.
        input_quantizer: Default config for inputs, None for float.
        rules: Exceptions, applied in order, each on top of what came before. A rule is
            ``dict(pattern=..., module_type=..., weight_quantizer=..., input_quantizer=...)``: a
            shell pattern (``*`` also matches dots) over module names, the name of a class or a list
            of names (modules of derived classes match, too), or both; and for either role a dict
            whose keys override those of the default (a dict with ``type`` replaces it), or None for
            float. A role that the rule does not name keeps what it has.

    Raises:
        ValueError: A rule without a pattern or type, without an effect or with an unknown key.
    """

    def __init__(self,
                 weight_quantizer: dict | None = None,
                 input_quantizer: dict | None = None,
                 rules: Sequence[dict] = ()) -> None:
        self.default = Assignment(weight_quantizer, input_quantizer)
        self.rules = [_checked(rule, position) for position, rule in enumerate(rules)]

    def assign(self,
               names: Sequence[str],
               types: Mapping[str, Collection[str]] | None = None,
               wholes: Mapping[str, str] | None = None) -> dict[str, Assignment]:
        """The assignment of each module name.

        Args:
            names: Names of modules.
            types: By name, the class names that a module has; needed by rules with a type.
            wholes: By the name of a part of a module the name of that, whose rules it has, too.

        Raises:
            ValueError: A rule matches none of the modules.
        """
        types = types or {}
        known = {name: (name, (wholes or {}).get(name, name)) for name in names}
        for rule in self.rules:
            if not any(_matches(rule, each, types) for each in known.values()):
                raise ValueError(
                    f'quantization.rules: the {_selection(rule)} matches no module that '
                    f'can be quantized. These can: {_abridged(names)}.')
        return {name: self._assignment(each, types) for name, each in known.items()}

    def _assignment(self, names: tuple[str, str], types: Mapping[str,
                                                                 Collection[str]]) -> Assignment:
        assigned = {role: getattr(self.default, role) for role in ROLES}
        for rule in self.rules:
            if _matches(rule, names, types):
                for role in ROLES:
                    if role in rule:
                        assigned[role] = _override(assigned[role], rule[role], rule)
        return Assignment(**assigned)


def _checked(rule: Any, position: int) -> dict:
    where = f'quantization.rules[{position}]'
    if not isinstance(rule, dict) or not _has_selector(rule):
        raise ValueError(f'{where}: a rule is a dict with a pattern (a string), a module_type (a '
                         'class name or a list of them) or both, and at least one of '
                         f'{", ".join(ROLES)}, but got {rule!r}.')
    unknown = set(rule) - {*_SELECTORS, *ROLES}
    if unknown:
        raise ValueError(f'{where} ({_selection(rule)}): unknown key(s) '
                         f'{", ".join(sorted(unknown))}; known are '
                         f'{", ".join((*_SELECTORS, *ROLES))}.')
    if not any(role in rule for role in ROLES):
        raise ValueError(f'{where} ({_selection(rule)}) says nothing: give weight_quantizer, '
                         'input_quantizer or both.')
    return rule


def _has_selector(rule: dict) -> bool:
    types = _types(rule)
    has_names = all(isinstance(each, str) for each in types)
    has_pattern = isinstance(rule.get('pattern', ''), str)
    return has_names and has_pattern and ('pattern' in rule or bool(types))


def _types(rule: dict) -> Sequence[Any]:
    types = rule.get('module_type', ())
    return types if isinstance(types, (list, tuple)) else (types, )


def _matches(rule: dict, names: tuple[str, str], types: Mapping[str, Collection[str]]) -> bool:
    """Whether a rule is for a module, by its own name or that of the whole it is a part of."""
    wanted = _types(rule)
    of_type = not wanted or any(each in types.get(names[0], ()) for each in wanted)
    return of_type and any(fnmatchcase(name, rule.get('pattern', '*')) for name in names)


def _selection(rule: dict) -> str:
    return ', '.join(f'{key} {rule[key]!r}' for key in _SELECTORS if key in rule)


def _override(base: dict | None, change: dict | None, rule: dict) -> dict | None:
    if change is None or 'type' in change:
        return change
    if base is None:
        raise ValueError(f'quantization.rules ({_selection(rule)}): {dict(change)} changes a '
                         'quantizer, but the module has none; give its type too.')
    return {**base, **change}


def _abridged(names: Sequence[str], limit: int = 12) -> str:
    shown = ', '.join(list(names)[:limit])
    return shown if len(names) <= limit else f'{shown}, ... ({len(names)} in all)'
