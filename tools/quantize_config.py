"""``mmaqd quantize-config``, with the mmaqd of the checkout that this file lies in."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mmaqd.cli.quantize_config import main  # noqa: E402

if __name__ == '__main__':
    main()
