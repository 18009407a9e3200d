"""Checks of what hooks are given."""
from __future__ import annotations

from typing import Any


def check_positive(hook: object, **values: Any) -> None:
    """Check that arguments of a hook are integers of at least 1.

    Raises:
        ValueError: One is not.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f'{type(hook).__name__}: {name} must be at least 1, but got '
                             f'{value!r}.')
