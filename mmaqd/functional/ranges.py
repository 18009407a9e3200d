"""The check of a bit width, and the least interval."""
from __future__ import annotations

#: Smaller intervals (and step sizes, clipping lengths) count as this one
MIN_INTERVAL = 1e-6


def check_bit_width(bit_width: int, minimum: int, owner: str) -> int:
    """Return ``bit_width`` if it is an integer in ``minimum``..8.

    Args:
        bit_width: What the user gave.
        minimum: Smallest width that ``owner`` can have.
        owner: Name for the message.

    Raises:
        ValueError: It is not such an integer (a bool or a string is not).
    """
    is_integer = isinstance(bit_width, int) and not isinstance(bit_width, bool)
    if not is_integer or not minimum <= bit_width <= 8:
        raise ValueError(f'{owner}: bit_width must be an integer from {minimum} to 8, but got '
                         f'{bit_width!r}.')
    return bit_width
