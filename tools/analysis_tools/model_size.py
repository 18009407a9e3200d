"""``mmaqd report size``, with the mmaqd of the checkout that this file lies in."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from mmaqd.cli.report import model_size  # noqa: E402

if __name__ == '__main__':
    model_size()
