"""Few shell patterns for many module names, for rules that a user can paste."""
from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Collection, Iterator


def patterns_for(names: Collection[str], all_names: Collection[str]) -> list[str]:
    """Shell patterns that match all of ``names`` and no other of ``all_names``.

    Example:
        >>> patterns_for(['neck.0', 'neck.1', 'head.cls'], ['stem', 'neck.0', 'neck.1', 'head.cls'])
        ['neck.*', 'head.cls']
    """
    wanted = dict.fromkeys(names)
    others = [name for name in all_names if name not in wanted]
    patterns = []
    while wanted:
        patterns.append(_widest(next(iter(wanted)), wanted, others))
        wanted = {name: None for name in wanted if not fnmatchcase(name, patterns[-1])}
    return patterns


def _widest(name: str, wanted: Collection[str], others: Collection[str]) -> str:
    """The pattern that matches ``name`` and most of ``wanted``; the longest of these."""
    best, count = name, sum(fnmatchcase(each, name) for each in wanted)
    for pattern in _candidates(name):
        matched = sum(fnmatchcase(each, pattern) for each in wanted)
        if matched > count and not any(fnmatchcase(each, pattern) for each in others):
            best, count = pattern, matched
    return best


def _candidates(name: str) -> Iterator[str]:
    """Wider patterns, the narrow ones first."""
    parts = name.split('.')
    yield re.sub(r'(^|(?<=\.))\d+(?=\.|$)', '*', name)
    yield re.sub(r'\d+', '*', name)
    for end in reversed([match.end() for match in re.finditer(r'[._]', name)]):
        yield f'{name[:end]}*'
    yield '*'
    for length in reversed(range(1, len(parts))):
        yield '.'.join(['*', *parts[-length:]])
