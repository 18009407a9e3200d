"""What `import mmaqd` gives: the public names, everything registered, the versions checked."""

from mmaqd.compat import check_versions

# The line above checks the versions, so it comes before everything that could fail on a wrong one.
# isort: split
from mmengine.config.utils import MODULE2PACKAGE

from mmaqd import checkpoints, conversion, datasets, engine, export, layers, models, quantizers
from mmaqd.conversion import QuantizedDetector
from mmaqd.layers import (MultiLevelBN, MultiLevelSyncBN, QuantConv2d, QuantConvTranspose2d,
                          QuantLinear, QuantMultiheadAttention)
from mmaqd.models import AQDATSSHead, AQDFCOSHead, AQDRetinaHead
from mmaqd.paths import config_path, upstream_config_path
from mmaqd.quantizers import LIQActivationQuantizer, LIQWeightQuantizer
from mmaqd.version import __version__

# MMEngine finds the configs of 'mmaqd::...' through this table. The dotted name is on purpose: no
# distribution has it, so MMEngine asks the import system where the package lies, which is right for
# an editable installation too (the distribution's record is not).
MODULE2PACKAGE.setdefault('mmaqd', 'mmaqd.version')

__all__ = [
    'AQDATSSHead',
    'AQDFCOSHead',
    'AQDRetinaHead',
    'LIQActivationQuantizer',
    'LIQWeightQuantizer',
    'MultiLevelBN',
    'MultiLevelSyncBN',
    'QuantConv2d',
    'QuantConvTranspose2d',
    'QuantLinear',
    'QuantMultiheadAttention',
    'QuantizedDetector',
    '__version__',
    'check_versions',
    'checkpoints',
    'config_path',
    'conversion',
    'datasets',
    'engine',
    'export',
    'layers',
    'models',
    'quantizers',
    'upstream_config_path',
]
