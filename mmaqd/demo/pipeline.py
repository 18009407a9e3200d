"""The demo: data, float and low-bit training, integers, an exported file, table and pictures."""
from __future__ import annotations

import importlib.util
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

from mmengine.config import Config

from mmaqd.analysis import checkpoint_intervals, logged_intervals, plot_detections, plot_intervals
from mmaqd.datasets import IMAGE_SIZE, ShapesSpec, ensure_shapes, find_shapes
from mmaqd.export.latency import measure
from mmaqd.paths import config_path
from mmaqd.version import __version__

from .commands import run_tool, shown_path
from .report import report_row, with_file, write_report
from .stages import Stage, run_stages

_RECORD = 'stages.json'
_INTEGERS = 'integers'
_FILE = 'file'
_ENGINE = 'onnxruntime'
_SHOWN_IMAGES = (1, 2, 3, 4, 5)
_TABLE = ('results.md', 'results.json')
_PICTURES = ('detections.png', 'intervals.png')


@dataclass(frozen=True)
class DemoModel:
    """A model of the demo and where its files lie.

    Args:
        name: Its name in the table and of its folder.
        config: Path of its config.
        work_dir: Folder of its training and evaluation.
        checkpoint: Checkpoint after the last epoch.
    """

    name: str
    config: str
    work_dir: Path
    checkpoint: Path

    @property
    def detections(self) -> Path:
        """Detections on the validation images, in COCO's format for results."""
        return self.work_dir / 'val.bbox.json'

    @property
    def metrics(self) -> Path:
        """What CocoMetric made of them."""
        return self.work_dir / 'val_metrics.json'


class Demo:
    """Everything that ``tools/demo.py`` does.

    Args:
        work_dir: Folder for checkpoints, logs, table and pictures.
        data_root: Folder of the generated data set, made when missing.
        report: Takes the lines that a person sees.
        spec: The data to generate.
    """

    def __init__(self,
                 work_dir: str | Path,
                 data_root: str | Path,
                 report: Callable[[str], None] = print,
                 spec: ShapesSpec = ShapesSpec()) -> None:
        self.work_dir = Path(work_dir)
        self.data_root = Path(data_root)
        self.report = report
        self.spec = spec
        # Our demo configs read this variable, here and in the tools.
        self.environment = dict(MMAQD_SHAPES=f'{shown_path(data_root)}/')
        os.environ.update(self.environment)
        self.float_model = self._model('float', 'demo/retinanet_r18_fpn_mlbn_demo_shapes.py')
        self.low_bit_model = self._model('w4a4', 'demo/retinanet_r18_fpn_mlbn-w4a4_demo_shapes.py')
        folder = self.work_dir / _INTEGERS
        self.integer_model = DemoModel(_INTEGERS, str(folder / 'twin.py'), folder,
                                       folder / 'twin.pth')
        folder = self.work_dir / _FILE
        self.file_model = DemoModel(_FILE, self.low_bit_model.config, folder, folder / 'w4a4.onnx')
        self.float_file = folder / 'float.onnx'
        self.latencies = folder / 'latencies.json'

    def run(self, fresh: bool = False) -> list[str]:
        """Do what is left to do, then show the table and say where everything is.

        Args:
            fresh: Remove what earlier calls left, all but the data, and start over.

        Returns:
            Names of the stages that ran.

        Raises:
            ValueError: If ``work_dir`` holds files of something else.
            ToolError: If training or evaluating fails.
        """
        self._check_work_dir()
        if fresh:
            shutil.rmtree(self.work_dir, ignore_errors=True)
        if not self.exports:
            self.report("No exported file: onnx and onnxruntime are missing (pip install "
                        "'mmaqd[export]').")
        ran = run_stages(self.stages(), self.work_dir / _RECORD, self.report)
        self.report('\n' + (self.work_dir / _TABLE[0]).read_text())
        places = [(Path(name).stem, self.work_dir / name) for name in (*_TABLE, *_PICTURES)]
        places += [(f'{model.name} model', model.checkpoint) for model in self._models]
        for title, path in places:
            self.report(f'{title:12} {shown_path(path)}')
        return ran

    def stages(self) -> list[Stage]:
        """The stages, in order."""
        load = f'load_from={shown_path(self.float_model.checkpoint)}'
        return [
            Stage(
                'data',
                f'generate the data set {shown_path(self.data_root)}',
                action=lambda: ensure_shapes(self.data_root, self.spec),
                is_intact=lambda: find_shapes(self.data_root, self.spec),
                settings=asdict(self.spec)),
            self._training(self.float_model, []),
            self._evaluation(self.float_model),
            self._training(self.low_bit_model, ['--cfg-options', load]),
            self._evaluation(self.low_bit_model),
            Stage(
                'convert',
                'convert the w4a4 model to integers',
                action=self._convert,
                is_intact=self.integer_model.checkpoint.is_file),
            self._evaluation(self.integer_model),
            *(self._file_stages() if self.exports else []),
            Stage(
                'table', 'write the table', self._write_table, is_intact=lambda: self._has(_TABLE)),
            Stage(
                'pictures',
                'draw the detections and the learned intervals',
                self._draw,
                is_intact=lambda: self._has(_PICTURES)),
        ]

    @property
    def exports(self) -> bool:
        """Whether the packages are there that a file takes."""
        return all(importlib.util.find_spec(package) for package in ('onnx', _ENGINE))

    @property
    def _models(self) -> tuple[DemoModel, ...]:
        models = self.float_model, self.low_bit_model, self.integer_model
        return (*models, self.file_model) if self.exports else models

    def _model(self, name: str, relative: str) -> DemoModel:
        config = config_path(relative)
        epochs = Config.fromfile(config).train_cfg.max_epochs
        work_dir = self.work_dir / name
        return DemoModel(name, config, work_dir, work_dir / f'epoch_{epochs}.pth')

    def _check_work_dir(self) -> None:
        """Refuse a folder that others use: resetting a stage removes folders in it."""
        if self.work_dir.is_dir() and any(self.work_dir.iterdir()) \
                and not (self.work_dir / _RECORD).is_file():
            raise ValueError(f'{self.work_dir} holds files, but none of the demo. Give another '
                             'folder by --work-dir, or empty this one.')

    def _training(self, model: DemoModel, options: list[str]) -> Stage:
        arguments = [
            shown_path(model.config), '--work-dir',
            shown_path(model.work_dir), '--resume', *options
        ]
        settings = dict(version=__version__, config=Config.fromfile(model.config).to_dict())
        return Stage(
            f'train-{model.name}',
            f'train the {model.name} model',
            action=lambda: run_tool('train.py', arguments, self.environment, self.report),
            reset=lambda: shutil.rmtree(model.work_dir, ignore_errors=True),
            is_intact=model.checkpoint.is_file,
            settings=settings)

    def _evaluation(self, model: DemoModel) -> Stage:
        return Stage(
            f'test-{model.name}',
            f'evaluate the {model.name} model',
            action=lambda: self._evaluate(model),
            is_intact=lambda: model.detections.is_file() and model.metrics.is_file())

    def _evaluate(self, model: DemoModel) -> None:
        logs = model.work_dir / 'test'
        shutil.rmtree(logs, ignore_errors=True)
        prefix = shown_path(model.work_dir / 'val')
        run_tool('test.py', [
            shown_path(model.config),
            shown_path(model.checkpoint), '--work-dir',
            shown_path(logs), '--cfg-options', f'test_evaluator.outfile_prefix={prefix}'
        ], self.environment, self.report)
        written, = logs.glob('*/*.json')
        shutil.copyfile(written, model.metrics)

    def _convert(self) -> None:
        run_tool('deployment/convert_integer.py', [
            shown_path(self.low_bit_model.config),
            shown_path(self.low_bit_model.checkpoint), '--out',
            shown_path(self.integer_model.checkpoint)
        ], self.environment, self.report)

    def _file_stages(self) -> list[Stage]:
        file = self.file_model.checkpoint
        return [
            Stage(
                'export-float',
                'export the float model, to compare with',
                action=lambda: self._export(self.float_model, self.float_file, '--float'),
                is_intact=self.float_file.is_file),
            Stage(
                'export',
                'export the w4a4 model as a file on int8 kernels',
                action=lambda: self._export(self.low_bit_model, file),
                is_intact=file.is_file),
            self._evaluation(self.file_model),
            Stage(
                'latency',
                'measure both files in turn',
                action=self._measure,
                is_intact=self.latencies.is_file),
        ]

    def _export(self, model: DemoModel, out: Path, *options: str) -> None:
        run_tool('deployment/export.py', [
            shown_path(model.config),
            shown_path(model.checkpoint), '--out',
            shown_path(out), *options
        ], self.environment, self.report)

    @property
    def _files(self) -> dict[str, Path]:
        """The exported files by the name of their row; none if nothing is exported."""
        files = {'float': self.float_file, _FILE: self.file_model.checkpoint}
        return files if self.exports else {}

    def _measure(self) -> None:
        found = measure({
            (name, _ENGINE): str(path)
            for name, path in self._files.items()
        }, (1, 3, IMAGE_SIZE, IMAGE_SIZE))
        times = {each.name: each.median for each in found}
        self.report(f'    one image, one thread: float {times["float"]:.1f} ms, '
                    f'w4a4 {times[_FILE]:.1f} ms')
        self.latencies.write_text(json.dumps(times))

    def _write_table(self) -> None:
        files, rows = self._files, []
        times = json.loads(self.latencies.read_text()) if files else {}
        for model in self._models:
            # The integers are those of the low-bit model: its bits, its size.
            described = self.low_bit_model if model is self.integer_model else model
            metrics = json.loads(model.metrics.read_text())
            row = report_row(model.name, described.config, metrics, IMAGE_SIZE)
            rows.append(with_file(row, files.get(model.name), times.get(model.name)))
        write_report(rows, self.work_dir)

    def _draw(self) -> None:
        detections, intervals = (self.work_dir / name for name in _PICTURES)
        models = (self.float_model, self.low_bit_model)
        plot_detections(self.data_root / 'annotations/val.json', self.data_root / 'val', {
            model.name: model.detections
            for model in models
        }, _SHOWN_IMAGES).savefig(detections)
        first = next(iter(logged_intervals(self.low_bit_model.work_dir).values()))
        last = checkpoint_intervals(self.low_bit_model.checkpoint)
        plot_intervals(first, last).savefig(intervals)

    def _has(self, names: tuple[str, ...]) -> bool:
        return all((self.work_dir / name).is_file() for name in names)
