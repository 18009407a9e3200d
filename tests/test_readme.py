"""The README: short, its code and its packed model run, its figures are those that are recorded."""
from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean

from mmaqd.conversion import quantization_table
from tests.helpers.commands import BLOCK, commands_of, run_tool
from tests.helpers.detector import build, loss, make_batch, model_cfg

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
MULTI, ONE = 'retinanet_r18-c16_fpn_mlbn', 'retinanet_r18-c16_fpn_bn'
# The rows of the table: from, to (rows of accuracy.json).
ROWS = {
    ('float', '4 bits: LIQ, multi-level BN'): (f'{MULTI}_12e-6e_bccd', f'{MULTI}-w4a4_6e_bccd'),
    ('float', '2 bits: LIQ, multi-level BN'): (f'{MULTI}_12e-6e_bccd', f'{MULTI}-w2a2_6e_bccd'),
    ('4 bits: LIQ', 'LSQ'): (f'{MULTI}-w4a4_6e_bccd', f'{MULTI}-w4a4-lsq_6e_bccd'),
    ('2 bits: LIQ', 'LSQ'): (f'{MULTI}-w2a2_6e_bccd', f'{MULTI}-w2a2-lsq_6e_bccd'),
    ('2 bits: LIQ, multi-level BN', 'one BN for all levels'):
    (f'{MULTI}-w2a2_6e_bccd', f'{ONE}-w2a2_6e_bccd'),
    ('2 bits: LSQ, multi-level BN', 'one BN for all levels'):
    (f'{MULTI}-w2a2-lsq_6e_bccd', f'{ONE}-w2a2-lsq_6e_bccd'),
    ('2 bits: LIQ', 'taught by its float twin'):
    (f'{MULTI}-w2a2_6e_bccd', f'{MULTI}-w2a2-distill-twin_6e_bccd'),
}  # yapf: disable


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def difference(before: str, after: str) -> tuple[str, str]:
    """AP of one row minus another over the seeds that both have, and their number."""
    record = json.loads((ROOT / 'docs' / 'benchmarks' / 'accuracy.json').read_text())
    runs = [record[row]['runs'] for row in (before, after)]
    seeds = runs[0].keys() & runs[1].keys()
    ap = [[100 * run[seed]['metrics']['bbox_mAP'] for seed in sorted(seeds)] for run in runs]
    return f'{mean(ap[1]) - mean(ap[0]):+.1f}', str(len(seeds))


def test_the_table_is_what_is_recorded():
    table = README.split('| from | to | AP | seeds |\n|---|---|---|---|\n')[1].split('\n\n')[0]
    shown = [tuple(line.strip('| ').split(' | ')) for line in table.splitlines()]
    assert shown == [(*names, *difference(*rows)) for names, rows in ROWS.items()]


def test_the_speed_is_what_is_recorded():
    page = (ROOT / 'docs' / 'benchmarks' / 'deployment.md').read_text()
    table = page.split('| faster | OpenVINO: float |')[1].split('\n\n')[0]
    factors = re.findall(r'\| (\d\.\d) (?=\|)', table)
    assert f'{min(factors)} to {max(factors)} times as fast' in README.replace('\n', ' ')


def test_the_packed_model_detects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    command, = [words for words in commands_of(README) if 'tools/image_demo.py' in words]
    run_tool(monkeypatch, [*command, '--device', 'cpu'])
    found = json.loads((tmp_path / 'found' / 'preds' / 'BloodImage_00057.json').read_text())
    assert sum(score > 0.3 for score in found['scores']) > 5
    assert (tmp_path / 'found' / 'vis' / 'BloodImage_00057.jpg').is_file()


def test_the_code_quantizes_a_detector():
    code, = [block for _, block in BLOCK.findall(README) if 'prepare(' in block]
    detector = build(model_cfg('RetinaNet'))
    exec(code, dict(detector=detector, batches=[make_batch()]))
    assert {row.weight_bits for row in quantization_table(detector)} == {4}
    assert loss(detector.train(), make_batch()).isfinite()
