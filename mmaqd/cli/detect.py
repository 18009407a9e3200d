"""Detect objects with an exported model: needs numpy, OpenCV and ONNX Runtime or OpenVINO."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, Sequence

IMAGES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
WRITTEN = ('.bmp', '.jpeg', '.jpg', '.png')
JSON = 'detections.json'


def load_runtime() -> ModuleType:
    """mmaqd/export/runtime.py by its path: beside this file, of the checkout, or installed.

    The package is not imported, since that needs torch and MMDetection.
    """
    path = next((each for each in runtime_places() if each.is_file()), None)
    if path is None:
        raise ImportError('No runtime.py beside detect.py: copy mmaqd/export/runtime.py there.')
    spec = importlib.util.spec_from_file_location('mmaqd_runtime', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def runtime_places() -> Iterator[Path]:
    """Where the runtime may be."""
    here = Path(__file__).resolve()
    yield here.with_name('runtime.py')
    yield here.parent.parent / 'export' / 'runtime.py'
    package = importlib.util.find_spec('mmaqd')
    for folder in (package and package.submodule_search_locations) or ():
        yield Path(folder) / 'export' / 'runtime.py'


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog=prog)
    parser.add_argument('model', help='ONNX file that mmaqd export wrote')
    parser.add_argument('images', nargs='?', type=Path, help='image, or folder of images')
    parser.add_argument('--out', type=Path, help=f'folder for the drawn images and {JSON}')
    parser.add_argument(
        '--engine',
        choices=('onnxruntime', 'openvino'),
        help='by default the one that the file was written for')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score that is kept (%(default)s)')
    parser.add_argument('--threads', type=int, help='threads of the engine')
    parser.add_argument('--json', action='store_true', help=f'write {JSON} only, draw nothing')
    parser.add_argument(
        '--fit', action='store_true', help='shrink images that are larger than the input')
    parser.add_argument(
        '--self-test',
        action='store_true',
        help='compare the detections on a fixed image with those stored in the file')
    args = parser.parse_args(argv)
    if (args.images is None) != (args.out is None) or not (args.images or args.self_test):
        parser.error('give an image or folder together with --out, or --self-test')
    return args


def find_images(source: Path, fault: type[Exception]) -> list[Path]:
    """The image itself, or the images of a folder, sorted."""
    if not source.exists():
        raise fault(f'{source} does not exist: expected an image or a folder of images.')
    if not source.is_dir():
        return [source]
    found = sorted(each for each in source.iterdir()
                   if each.suffix.lower() in IMAGES and each.is_file())
    if not found:
        raise fault(f'{source} holds no images: expected files ending in {", ".join(IMAGES)}.')
    return found


def check_output(out: Path, images: list[Path], fault: type[Exception]) -> None:
    """Make the folder and write into it on trial, before any work is done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise fault(f"--out {out} can't be written ({error.strerror}): "
                    'name a folder that can.') from error
    if (out / JSON).is_dir():
        raise fault(f'{out / JSON} is a folder: name another --out.')
    if out.resolve() == images[0].resolve().parent:
        raise fault(f'--out {out} holds the images themselves, which would be overwritten: '
                    'name another folder.')


def drawn_name(path: Path) -> str:
    """Name of the drawn image, in a format that OpenCV surely writes."""
    return path.name if path.suffix.lower() in WRITTEN else path.name + '.png'


def read_image(runtime: ModuleType, path: Path) -> tuple[Any, str]:
    """An image as MMDetection reads it, H x W x 3 uint8, blue first; and what was converted."""
    cv2 = runtime.cv2
    try:
        data = runtime.np.fromfile(path, runtime.np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise runtime.DetectError(f"it can't be read ({error.strerror}).") from error
    except cv2.error:
        image = stored = None
    if image is None or stored is None:
        raise runtime.DetectError('it is no image that OpenCV reads.')
    kinds = {
        'grey': stored.ndim == 2,
        'alpha': stored.shape[2:] == (4, ),
        '16 bits': stored.dtype == 'uint16',
    }
    found = ', '.join(kind for kind, is_so in kinds.items() if is_so)
    return image, f', converted to 8-bit colour ({found})' if found else ''


def usable(runtime: ModuleType, detector: Any,
           paths: list[Path]) -> Iterator[tuple[Path, Any, str]]:
    """Path, image and note of each that can be used; of several, the others are said on stderr."""
    for path in paths:
        try:
            image, note = read_image(runtime, path)
            detector.check(image)
        except runtime.DetectError as error:
            if len(paths) == 1:
                raise runtime.DetectError(f'{path}: {error}') from error
            print(f'Skipped {path}: {error}', file=sys.stderr)
            continue
        yield path, image, note


def detect(runtime: ModuleType, detector: Any, paths: list[Path],
           args: argparse.Namespace) -> list[dict]:
    """Detections of the images that can be used, as many at a time as the file takes."""
    records: list[dict] = []
    images = usable(runtime, detector, paths)
    while batch := list(itertools.islice(images, detector.recipe['batch'])):
        results = detector([image for _, image, _ in batch], args.score_thr)
        for (path, image, note), result in zip(batch, results):
            size = dict(zip(('height', 'width'), image.shape))
            records.append(dict(file=path.name, **size, **runtime.to_json(result)))
            if not args.json:
                write_image(runtime, args.out / drawn_name(path), runtime.draw(image, result))
            print(f'{path.name}: {len(result["scores"])} detections{note}', flush=True)
    return records


def write_image(runtime: ModuleType, path: Path, image: Any) -> None:
    """Encode and write an image; OpenCV's own writing fails silently."""
    path.write_bytes(runtime.cv2.imencode(path.suffix, image)[1].tobytes())


def run(runtime: ModuleType, args: argparse.Namespace) -> int:
    """Do what the command line says; the exit status."""
    fault = runtime.DetectError
    paths = find_images(args.images, fault) if args.images else []
    if paths:
        runtime.read_recipe(args.model)
        check_output(args.out, paths, fault)
    detector = runtime.Detector(args.model, args.engine, args.threads, args.fit)
    if args.self_test:
        print(detector.self_test())
    if not paths:
        return 0
    records = detect(runtime, detector, paths, args)
    skipped = len(paths) - len(records)
    if not records:
        raise fault(f'None of {len(paths)} images could be used, nothing was written.')
    (args.out / JSON).write_text(json.dumps(records, indent=1) + '\n')
    drawn = '' if args.json else f'{len(records)} drawn images and '
    total = sum(len(each['scores']) for each in records)
    print(f'Wrote {drawn}{JSON} to {args.out}: {total} detections in {len(records)} images'
          f'{f", {skipped} skipped" if skipped else ""}.')
    return 1 if skipped else 0


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Detect as the command line says; errors are one sentence."""
    args = parse_args(argv, prog)
    warnings.showwarning = lambda message, *_, **__: print(f'Note: {message}', file=sys.stderr)
    try:
        runtime = load_runtime()
    except ImportError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    try:
        return run(runtime, args)
    except (runtime.DetectError, OSError) as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\nStopped.', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
