"""What MMEngine's hub and registries ask of a package by this exact module name."""

from __future__ import annotations

from mmdet.utils import register_all_modules as register_mmdet_modules
from mmengine.registry import init_default_scope as set_default_scope


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register the modules of mmdet and of mmaqd (importing mmaqd has done the latter).

    Args:
        init_default_scope: Also make ``mmaqd`` the default scope, in which the types of mmdet and
            of MMEngine are found without a prefix.
    """
    register_mmdet_modules(init_default_scope=False)
    if init_default_scope:
        set_default_scope('mmaqd')
