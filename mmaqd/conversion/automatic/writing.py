"""The text of a low-bit config."""
from __future__ import annotations

import textwrap
from copy import deepcopy
from typing import Any, Iterator, Sequence

from yapf.yapflib.yapf_api import FormatCode

from .plan import Method, Plan, Rule
from .upstream import Upstream

_STYLE = ('{based_on_style: pep8, column_limit: 100, '
          'split_before_expression_after_opening_paren: true}')
_HOOK = "dict(type='mmaqd.InitializeIntervalsHook')"
_MANY = 3


def config_text(upstream: Upstream, plan: Plan, bits: int, method: Method) -> str:
    """A config that inherits ``upstream`` and quantizes its detector by ``plan``."""
    parts = [
        f'# {upstream.name}: {bits}-bit weights and inputs ({method.title}), written by\n'
        '# tools/quantize_config.py. Everything is decided here, so change what you like.',
        f'_base_ = {upstream.base!r}', f'custom_imports = {_custom_imports(upstream)}',
        _model(upstream, plan), *_other_options(upstream),
        _hooks(upstream), *_work_dir(upstream),
        _start(upstream)
    ]
    return FormatCode('\n\n'.join(parts) + '\n', style_config=_STYLE)[0]


def _custom_imports(upstream: Upstream) -> str:
    imports = (upstream.cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    return _text(dict(imports=list(dict.fromkeys([*imports, 'mmaqd'])), allow_failed_imports=False))


def _model(upstream: Upstream, plan: Plan) -> str:
    changes = {k: v for k, v in _nested(upstream).get('model', {}).items() if k != 'type'}
    options = ''.join(f'{key}={_text(value)},\n' for key, value in changes.items())
    notes = ''.join(_comment(note) for note in plan.notes)
    rules = ''.join(_rule(rule) for rule in plan.rules)
    return (f"model = dict(\ntype='mmaqd.QuantizedDetector',\n"
            f'detector={upstream.cfg.model.type!r},\n{options}quantization=dict(\n{notes}'
            f'weight_quantizer={_text(plan.weight_quantizer)},\n'
            f'input_quantizer={_text(plan.input_quantizer)},\nrules=[\n{rules}]))')


def _rule(rule: Rule) -> str:
    change = ', '.join(f'{role}={_text(value)}' for role, value in rule.change.items())
    if len(rule.patterns) > _MANY:
        names = ''.join(f'{pattern!r},\n' for pattern in rule.patterns)
        lines = [f'*[dict(pattern=name, {change}) for name in (\n{names})],\n']
    else:
        lines = [f'dict({_arguments(selector)}, {change}),\n' for selector in rule.selectors]
    return _comment(rule.why) + ''.join(lines)


def _hooks(upstream: Upstream) -> str:
    own = upstream.cfg.get('custom_hooks') or []
    comment = _comment('The intervals start from data. Our tools/train.py adds its other hooks.')
    if any('EMAHook' in str(hook.get('type')) for hook in own):
        comment += _comment('EMAHook averages the intervals as it does the weights.')
    if not own:
        return f'{comment}custom_hooks = [{_HOOK}]'
    if any(key.split('.')[0] == 'custom_hooks' for key in upstream.options):
        shown = ', '.join(_text(hook) for hook in own)
        return f'{comment}custom_hooks = [{shown}, {_HOOK}]'
    return f'{comment}custom_hooks = [*_base_.custom_hooks, {_HOOK}]'


def _work_dir(upstream: Upstream) -> Iterator[str]:
    """Another folder than that of the float model, if it names one: files have the same names."""
    folder = upstream.cfg.get('work_dir')
    if folder and 'work_dir' not in upstream.options:
        low_bit = folder.rstrip('/') + '_low_bit'
        yield f'{_comment("Not in the folder of the float model.")}work_dir = {low_bit!r}'


def _start(upstream: Upstream) -> str:
    loop = upstream.cfg.get('train_cfg') or {}
    last = next(
        (f'{unit}_{loop[key]}'
         for key, unit in (('max_epochs', 'epoch'), ('max_iters', 'iter')) if loop.get(key)),
        'epoch_12')
    text = ('Low bits need a trained float model to start from; then model.backbone.init_cfg=None '
            'spares loading another checkpoint first.')
    folder = (upstream.cfg.get('work_dir') or f'work_dirs/{upstream.name}').rstrip('/')
    return f"{_comment(text)}# load_from = '{folder}/{last}.pth'"


def _other_options(upstream: Upstream) -> Iterator[str]:
    for key, value in _nested(upstream).items():
        if key not in ('model', 'custom_hooks', 'custom_imports'):
            yield f'{key} = {_text(value)}'


def _nested(upstream: Upstream) -> dict[str, Any]:
    """The options of the user as nested dicts; one inside of a list becomes that whole list."""
    tree: dict[str, Any] = {}
    for option in upstream.options:
        here, there = tree, upstream.cfg
        parts = option.split('.')
        for position, part in enumerate(parts):
            there = there[part]
            if isinstance(there, (list, tuple)) or position == len(parts) - 1:
                here[part] = deepcopy(there)
                break
            here = here.setdefault(part, {})
    return tree


def _text(value: Any) -> str:
    """A value as code, dicts as calls of ``dict`` where possible."""
    if isinstance(value, dict):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return f'dict({_arguments(value)})'
        return '{' + ', '.join(f'{key!r}: {_text(each)}' for key, each in value.items()) + '}'
    if isinstance(value, list):
        return f'[{", ".join(map(_text, value))}]'
    if isinstance(value, tuple):
        return f'({"".join(f"{_text(each)}, " for each in value)})'
    return repr(value)


def _arguments(values: dict) -> str:
    return ', '.join(f'{key}={_text(value)}' for key, value in values.items())


def _comment(text: str) -> str:
    lines: Sequence[str] = textwrap.wrap(text, 80)
    return ''.join(f'# {line}\n' for line in lines)
