"""Draw what the README shows: AP, size and latency as recorded, detections, and badges.

    python tools/dev/front_page.py plot
    python tools/dev/front_page.py badges
    MMAQD_BCCD=/path/to/bccd/ python tools/dev/front_page.py detections

The last one needs the float model, which its config trains in a few minutes.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmaqd.analysis import build_detector, packed_weight_bytes, plot_detections
from mmaqd.conversion import quantization_table
from mmaqd.engine import launch

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / 'docs' / 'benchmarks'
IMAGES = ROOT / 'docs' / 'images'
DETECTOR = 'retinanet_r18_fpn_mlbn'
ROWS = {  # label: row of accuracy.json, which is the name of its config too
    'float': f'{DETECTOR}_12e-6e_bccd',
    '4 bits': f'{DETECTOR}-w4a4_6e_bccd',
    '3 bits': f'{DETECTOR}-w3a3_6e_bccd',
    '2 bits': f'{DETECTOR}-w2a2_6e_bccd',
}
# Where a label stands: its offset in points from the mean, and how it is aligned.
LABELS = {
    'float': ((0, 28), 'center'),
    '4 bits': ((16, -4), 'left'),
    '3 bits': ((0, 50), 'center'),
    '2 bits': ((4, -72), 'center'),
}
SMALL = 'retinanet_r18-c16_fpn_mlbn'
DETECTING = {  # label: config, and where the checkpoint of its name is
    'float': (f'{SMALL}_1xb8-12e_bccd', 'work_dirs/{}/epoch_12.pth'),
    '4 bits': (f'{SMALL}-w4a4_1xb8-6e_bccd', 'configs/bccd/packed/{}.safetensors'),
    '2 bits': (f'{SMALL}-w2a2-distill_1xb8-6e_bccd', 'configs/bccd/packed/{}.safetensors'),
}
SHOWN = ('BloodImage_00057.jpg', )  # which lies in the repository
FLOAT, LOW = '#7a869a', '#1565c0'
BADGES = dict(
    python='3.10+', MMDetection='3.x', torch='2.1+', licence='Apache 2.0', arXiv='2007.06919')
# Drawn here, so that they are seen without the network too.
BADGE = '''<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img">
<title>{name} {value}</title>
<rect width="{width}" height="20" rx="3" fill="{low}"/>
<path d="M3 0h{split}v20h-{split}a3 3 0 0 1-3-3v-14a3 3 0 0 1 3-3z" fill="#444d56"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{left}" y="14">{name}</text><text x="{right}" y="14">{value}</text></g></svg>
'''


def recorded_ap() -> dict[str, list[float]]:
    """Test AP of each seed, in percent."""
    record = json.loads((BENCHMARKS / 'accuracy.json').read_text())
    return {
        label: [100 * run['metrics']['bbox_mAP'] for run in record[row]['runs'].values()]
        for label, row in ROWS.items()
    }


def megabytes() -> dict[str, float]:
    """Weights of all convs, their codes packed, in 10^6 bytes."""
    found = {}
    for label, row in ROWS.items():
        _, detector = build_detector(ROOT / 'configs' / 'bccd' / f'{row}.py')
        found[label] = packed_weight_bytes(quantization_table(detector)) / 1e6
    return found


def recorded_latencies() -> dict[str, float]:
    """Milliseconds of RetinaNet-R18 by engine and model, from the table of the page."""
    text = (BENCHMARKS / 'deployment.md').read_text()
    match = re.search(r'^\| RetinaNet-R18 \| (\d+) \| (\d+) \| [\d.]+ \| (\d+) \| (\d+) \|', text,
                      re.MULTILINE)
    if match is None:
        raise ValueError(f'{BENCHMARKS}/deployment.md has no row "| RetinaNet-R18 | ..." with '
                         'float and 4-bit latencies of both engines.')
    names = [f'{engine}\n{bits}' for engine in ('ONNX Runtime', 'OpenVINO')
             for bits in ('float', '4 bits')]  # yapf: disable
    return dict(zip(names, map(float, match.groups())))


def colour(label: str) -> str:
    return FLOAT if 'float' in label else LOW


def draw_accuracy(axes: Axes) -> None:
    """AP of each seed, and their mean, over the size of the weights."""
    sizes = megabytes()
    for label, values in recorded_ap().items():
        mean = sum(values) / len(values)
        axes.plot([sizes[label]] * len(values), values, 'o', color=colour(label), alpha=0.35)
        axes.plot(sizes[label], mean, '_', color=colour(label), markersize=20, markeredgewidth=3)
        offset, align = LABELS[label]
        axes.annotate(
            f'{label}\n{mean:.1f} AP, {sizes[label]:.1f} MB', (sizes[label], mean),
            offset,
            textcoords='offset points',
            ha=align,
            fontsize=8)
    axes.set_xscale('log')
    axes.set_xticks([5, 10, 20, 40, 80], labels=['5', '10', '20', '40', '80'])
    axes.minorticks_off()
    axes.set_xlim(3.2, 130)
    axes.set_ylim(40.5, 45.8)
    axes.set_xlabel('weights, MB')
    axes.set_ylabel('AP on BCCD test')
    axes.set_title('RetinaNet-R18, three seeds and their mean', fontsize=10)


def draw_latencies(axes: Axes) -> None:
    """Bars of the latencies."""
    latencies = recorded_latencies()
    bars = axes.barh(list(latencies), list(latencies.values()), color=[*map(colour, latencies)])
    axes.bar_label(bars, fmt='%.0f ms', padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(latencies.values()))
    axes.tick_params(axis='y', labelsize=8)
    axes.set_xlabel('ms for an image of 640 x 640, two CPU cores')
    axes.set_title('latency of the exported network', fontsize=10)


def draw_plot(path: Path) -> None:
    """Draw accuracy and size beside latencies, from what is recorded."""
    figure = Figure(figsize=(9, 3.2), layout='constrained', dpi=110)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    draw_accuracy(left)
    draw_latencies(right)
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path)


def draw_detections(path: Path) -> None:
    """Detect in the test images of BCCD by small models, and draw some of them."""
    data = Path(os.environ['MMAQD_BCCD'])
    annotations = data / 'annotations' / 'test.json'
    numbers = {each['file_name']: each['id']
               for each in json.loads(annotations.read_text())['images']}  # yapf: disable
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for label, (name, checkpoint) in DETECTING.items():
            prefix = Path(folder, label.replace(' ', '_'))
            launch.test(
                str(ROOT / 'configs' / 'bccd' / f'{name}.py'),
                str(ROOT / checkpoint.format(name)),
                work_dir=folder,
                cfg_options={'test_evaluator.outfile_prefix': str(prefix)})
            results[label] = f'{prefix}.bbox.json'
        figure = plot_detections(annotations, data / 'images', results,
                                 [numbers[name] for name in SHOWN])
    figure.savefig(path, dpi=160, bbox_inches='tight', pad_inches=0.05)


def draw_badges(folder: Path) -> None:
    """Write a badge for each of what is needed."""
    folder.mkdir(exist_ok=True)
    for name, value in BADGES.items():
        split, rest = (12 + round(6.9 * len(text)) for text in (name, value))
        text = BADGE.format(
            name=name,
            value=value,
            low=LOW,
            width=split + rest,
            split=split - 3,
            left=split / 2,
            right=split + rest / 2)
        (folder / f'{name.lower()}.svg').write_text(text)


PICTURES = dict(
    plot=(draw_plot, 'front_plot.png'),
    detections=(draw_detections, 'front_detections.jpg'),
    badges=(draw_badges, 'badges'))


def main() -> None:
    """Draw as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('picture', choices=PICTURES)
    parser.add_argument(
        '--out', type=Path, help='file, or folder of badges, to write (in docs/images)')
    args = parser.parse_args()
    draw, name = PICTURES[args.picture]
    draw(args.out or IMAGES / name)


if __name__ == '__main__':
    main()
