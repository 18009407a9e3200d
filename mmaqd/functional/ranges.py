"""Integer ranges of the bit widths, and the check of a bit width."""
from __future__ import annotations


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


def unsigned_qmax(bit_width: int) -> int:
    """Largest unsigned code, n = 2^b - 1.

    Example:
        >>> unsigned_qmax(4)
        15
    """
    return 2**bit_width - 1


def weight_qmax(bit_width: int) -> int:
    """Largest weight code; the codes are symmetric around zero and fit int8.

    Up to 7 bits it is n = 2^b - 1 (the codes are the odd integers -n..n); at 8 bits these would
    reach 255, so the codes are the integers -127..127 (narrow range).

    Example:
        >>> weight_qmax(2), weight_qmax(7), weight_qmax(8)
        (3, 127, 127)
    """
    return 2**min(bit_width, 7) - 1
