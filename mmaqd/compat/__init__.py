"""What lets mmaqd run on today's torch and on machines without a GPU.

The versions are checked first, since the other modules import what is being checked.
"""

from mmaqd.compat.versions import check_versions

check_versions()

from mmaqd.compat.class_names import check_classes  # noqa: E402
from mmaqd.compat.data import check_data  # noqa: E402
from mmaqd.compat.data_files import check_data_files  # noqa: E402
from mmaqd.compat.distributed import setup_cpu_distributed  # noqa: E402

__all__ = [
    'check_classes',
    'check_data',
    'check_data_files',
    'check_versions',
    'setup_cpu_distributed',
]
