"""The objects besides tensors that a checkpoint of MMEngine may hold; all others are refused."""

from __future__ import annotations

import _codecs
import pickle
from collections import OrderedDict
from typing import Any, Callable

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

_MULTIARRAY = (np._core if hasattr(np, '_core') else np.core).multiarray

# HistoryBuffer and the one-cycle schedulers are saved with references to these methods of theirs.
_METHODS: dict[type, tuple[str, ...]] = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def restricted_getattr(owner: Any, name: str) -> Callable:
    """Stand-in for ``getattr``, which a checkpoint calls by name, for the few methods that need it.

    Args:
        owner: The class that has the method.
        name: The method's name.

    Returns:
        The method.

    Raises:
        pickle.UnpicklingError: It is none of the few.
    """
    for allowed, names in _METHODS.items():
        if owner is allowed and name in names:
            return getattr(owner, name)
    raise pickle.UnpicklingError(f'Unsupported global: getattr of {name!r} on {owner!r}.')


def _allowed_globals() -> dict[str, Any]:
    """Map each name that may stand in a file to what it is loaded as."""
    classes = [HistoryBuffer, OneCycleParamScheduler, ConfigDict, np.ndarray, np.dtype]
    # Each number type has a dtype class of its own, which is reached by the state of an np.dtype.
    classes += [type(np.dtype(code)) for code in '?bBhHiIlLqQefd']
    allowed = {f'{cls.__module__}.{cls.__qualname__}': cls for cls in classes}
    for package in ('numpy._core', 'numpy.core'):  # numpy 2 and numpy 1 write different names
        allowed[f'{package}.multiarray._reconstruct'] = _MULTIARRAY._reconstruct
        allowed[f'{package}.multiarray.scalar'] = _MULTIARRAY.scalar
    allowed['builtins.getattr'] = restricted_getattr
    return allowed


ALLOWED_GLOBALS = _allowed_globals()

_TENSOR_GLOBALS = {
    'collections.OrderedDict': OrderedDict,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.nn.parameter.Parameter': torch.nn.Parameter,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
    'builtins.set': set,
    '_codecs.encode': _codecs.encode,
}


class _RestrictedUnpickler(pickle._Unpickler):
    """Finds the allowed globals and no other; torch itself resolves its storage types.

    The one in Python, since that in C would let a file set attributes of the functions and classes
    that it finds.
    """

    dispatch = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code not in {ord(each)
                        for each in 'io\x82\x83\x84\x92'}  # INST, OBJ, EXT*, NEWOBJ_EX
    }

    def find_class(self, module: str, name: str) -> Any:
        """Look up ``module.name`` on the allow-list."""
        # torch.save writes the module's name in Python 2.
        full_name = f'{"builtins" if module == "__builtin__" else module}.{name}'
        for allowed in (ALLOWED_GLOBALS, _TENSOR_GLOBALS):
            if full_name in allowed:
                return allowed[full_name]
        dtype = getattr(torch, name, None) if module == 'torch' else None
        if isinstance(dtype, torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f'Unsupported global: {full_name} is not allowed.')

    def load_build(self) -> None:
        """Give an object its state, unless it is a class or a function."""
        owner = self.stack[-2]
        if isinstance(owner, type) or callable(owner) and not isinstance(owner, torch.Tensor):
            raise pickle.UnpicklingError(f'Unsupported global: a change of {owner!r}.')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


class RestrictedPickle:
    """The ``pickle_module`` for a torch whose own safe loader can't take our allow-list."""

    UnpicklingError = pickle.UnpicklingError
    Unpickler = _RestrictedUnpickler

    @classmethod
    def load(cls, file: Any, **options: Any) -> Any:
        """Unpickle one object, as torch's reader of its old file format calls it."""
        return cls.Unpickler(file, **options).load()
