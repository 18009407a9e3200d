"""``python -m mmaqd`` is the command ``mmaqd``."""
import sys

from mmaqd.cli.commands import main

if __name__ == '__main__':
    sys.exit(main())
