"""Quantize MMDetection's detectors by one command each, and write docs/detectors.md.

Each detector runs in a process of its own on a few small images. A row that is there is not made
again, so that a stopped run goes on; --anew makes all of them again.

    python tools/benchmarks/detector_matrix.py [DETECTOR ...]
"""
from __future__ import annotations

import argparse
import json
import os
import time
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Mapping, Sequence

from detector_row import detector_row

from mmaqd.cli.command_line import command_line
from mmaqd.demo.stages import write_json
from mmaqd.paths import upstream_config_path

ROOT = Path(__file__).resolve().parents[2]
MARKERS = ('<!-- detector_matrix.py: begin -->', '<!-- detector_matrix.py: end -->')
_STEPS = ('config', 'calibrates', 'trains', 'predicts')
_TIME_LIMIT = 900

#: Config by the name of the detector.
DETECTORS = {
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSS': 'atss/atss_r50_fpn_1x_coco.py',
    'GFL': 'gfl/gfl_r50_fpn_1x_coco.py',
    'PAA': 'paa/paa_r50_fpn_1x_coco.py',
    'DDOD': 'ddod/ddod_r50_fpn_1x_coco.py',
    'FreeAnchor': 'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'FSAF': 'fsaf/fsaf_r50_fpn_1x_coco.py',
    'VFNet': 'vfnet/vfnet_r50_fpn_1x_coco.py',
    'TOOD': 'tood/tood_r50_fpn_1x_coco.py',
    'AutoAssign': 'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
    'PISA-RetinaNet': 'pisa/retinanet-r50_fpn_pisa_1x_coco.py',
    'GHM-RetinaNet': 'ghm/retinanet_r50_fpn_ghm-1x_coco.py',
    'SABL-RetinaNet': 'sabl/sabl-retinanet_r50_fpn_1x_coco.py',
    'RepPoints': 'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'NAS-FCOS': 'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
    'FoveaBox': 'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    'FoveaBox-align': 'foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco.py',
    'YOLOF': 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'GA-RetinaNet': 'guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py',
    'YOLOv3': 'yolo/yolov3_d53_8xb8-ms-608-273e_coco.py',
    'YOLOv3-MobileNetV2': 'yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py',
    'SSD300': 'ssd/ssd300_coco.py',
    'SSDLite': 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'YOLOX-tiny': 'yolox/yolox_tiny_8xb8-300e_coco.py',
    'YOLOX-nano': 'yolox/yolox_nano_8xb8-300e_coco.py',
    'RTMDet-tiny': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'RTMDet-Ins-tiny': 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'CenterNet-update': 'centernet/centernet-update_r50_fpn_8xb8-amp-lsj-200e_coco.py',
    'LD': 'ld/ld_r18-gflv1-r101_fpn_1x_coco.py',
    'CornerNet': 'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
    'CenterNet-R18': 'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'CondInst': 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'SOLO': 'solo/solo_r50_fpn_1x_coco.py',
    'SOLOv2': 'solov2/solov2_r50_fpn_1x_coco.py',
    'YOLACT': 'yolact/yolact_r50_1xb8-55e_coco.py',
    'RPN': 'rpn/rpn_r50_fpn_1x_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'DETR': 'detr/detr_r50_8xb2-150e_coco.py',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'Sparse R-CNN': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
}

# Upstream's config names its teacher by a path in a clone of MMDetection.
OPTIONS = {
    'LD': {
        'model.teacher_config': upstream_config_path('gfl/gfl_r101_fpn_ms-2x_coco.py')
    },
}


def make_rows(wanted: Sequence[str], folder: Path, anew: bool = False) -> dict[str, dict]:
    """The rows of detectors, made where they are not there yet; a crash is a row, too.

    Args:
        wanted: Names of detectors.
        folder: Where the rows lie.
        anew: Make rows that are there again.

    Returns:
        By detector, what :func:`detector_row.detector_row` gives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, start, made = {}, time.monotonic(), 0
    for number, name in enumerate(wanted, 1):
        file = folder / f'{name.replace(" ", "_")}.json'
        if anew or not file.exists():
            _make_row(DETECTORS[name], file, OPTIONS.get(name))
            made += 1
        rows[name] = json.loads(file.read_text())
        left = (time.monotonic() - start) / max(made, 1) * (len(wanted) - number)
        print(
            f'{number} of {len(wanted)}: {name}: {verdict(rows[name])} '
            f'({left / 60:.0f} min left)',
            flush=True)
    return rows


def verdict(row: Mapping[str, Any]) -> str:
    """Whether everything worked, or what failed."""
    if 'error' in row:
        missing = [step for step in _STEPS if step not in row['works']]
        return f'no ({missing[0] if missing else "?"}): {_short(row["error"])}'
    notes = []
    if row.get('loss_failed'):
        notes.append('loss not seen')
    if row.get('without_gradient'):
        notes.append(f'{len(row["without_gradient"])} intervals without a gradient')
    return ', '.join(['yes', *notes])


def table(rows: Mapping[str, dict]) -> str:
    """The rows as Markdown."""
    lines = [
        '| detector | exceptions, written as rules | rules | MACs % at 4 / 8 bits / float | '
        'multi-level head | works |', '|---|---|---|---|---|---|'
    ]
    for name, row in rows.items():
        macs = row.get('macs', {})
        shares = ' / '.join(f'{100 * macs.get(bits, 0):.0f}'
                            for bits in ('4', '8', '32')) if macs else '–'
        exceptions = '; '.join(row.get('exceptions', ())) or '–'
        cells = (name, exceptions, row.get('rules', '–'), shares, row.get('multi_level',
                                                                          '–'), verdict(row))
        lines.append('| ' + ' | '.join(str(cell).replace('|', '/') for cell in cells) + ' |')
    return '\n'.join(lines)


def update(document: Path, text: str) -> None:
    """Replace what is between the markers of a document."""
    before, _, rest = document.read_text().partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    document.write_text(f'{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}')


def _make_row(config: str, file: Path, options: dict | None) -> None:
    """Make a row in a process that is forked, so that nothing is imported anew."""
    process = get_context('fork').Process(target=_write_row, args=(config, file, options))
    process.start()
    process.join(_TIME_LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        write_json(file, dict(config=config, works=[], error=f'more than {_TIME_LIMIT} s'))
    elif process.exitcode:
        write_json(file, dict(config=config, works=[], error=f'crashed ({process.exitcode})'))


def _write_row(config: str, file: Path, options: dict | None) -> None:
    with open(file.with_suffix('.log'), 'w') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        write_json(file, detector_row(config, options))


def _short(text: str, limit: int = 160) -> str:
    line = ' '.join(text.split())
    return line if len(line) <= limit else f'{line[:limit]}...'


def main() -> None:
    """Make the rows that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detectors', nargs='*', help='shell patterns over names (all)')
    parser.add_argument('--out', default='work_dirs/detector_matrix', help='folder (%(default)s)')
    parser.add_argument('--anew', action='store_true', help='make rows again that are there')
    parser.add_argument('--write', action='store_true', help='write the table to docs/detectors.md')
    args = parser.parse_args()
    wanted = [
        name for name in DETECTORS
        if not args.detectors or any(fnmatch(name, each) for each in args.detectors)
    ]
    with command_line():
        rows = make_rows(wanted, Path(args.out), args.anew)
        print(table(rows))
        if args.write:
            update(ROOT / 'docs' / 'detectors.md', table(rows))


if __name__ == '__main__':
    main()
