"""Patterns for rules: they match what they should and nothing else."""
from __future__ import annotations

import random
from fnmatch import fnmatchcase

import pytest

from mmaqd.quantizers.patterns import patterns_for

NAMES = [
    'backbone.conv1', 'backbone.layer1.0.conv1', 'backbone.layer1.0.conv2',
    'backbone.layer1.1.conv1', 'neck.fpn_convs.0.conv', 'neck.fpn_convs.1.conv', 'head.cls',
    'head.reg', 'head.top_cls', 'head.top_reg'
]


@pytest.mark.parametrize('names, patterns', [
    pytest.param(NAMES, ['*'], id='everything'),
    pytest.param(NAMES[4:6], ['neck.*'], id='a-part'),
    pytest.param(NAMES[4:5], ['neck.fpn_convs.0.conv'], id='one'),
    pytest.param(['head.cls', *NAMES[4:6]], ['head.cls', 'neck.*'], id='two'),
    pytest.param([NAMES[1], NAMES[3]], ['backbone.layer1.*.conv1'], id='numbers'),
    pytest.param(NAMES[-2:], ['head.top_*'], id='underscore'),
    pytest.param([], [], id='nothing'),
])
def test_they_are_few(names: list[str], patterns: list[str]) -> None:
    found = patterns_for(names, NAMES)
    assert len(found) == len(patterns)
    assert {name for name in NAMES if any(fnmatchcase(name, each) for each in found)} == set(names)


def test_they_match_exactly_what_they_should() -> None:
    names = [f'{a}.{b}.{c}' for a in ('x', 'xy', 'z') for b in range(4) for c in ('p1', 'p2', 'q')]
    for seed in range(50):
        wanted = random.Random(seed).sample(names, 7)
        found = patterns_for(wanted, names)
        matched = {name for name in names if any(fnmatchcase(name, each) for each in found)}
        assert matched == set(wanted)
