"""How far a pass over some batches is."""
from __future__ import annotations

import sys
from time import monotonic

_PARTS = 4  # lines in a log


class Progress:
    """Says how many batches are done: on one line of a terminal, in a few lines of a log.

    Args:
        title: What is done.
        num_batches: Batches in all, at least 1; fewer may come.
    """

    def __init__(self, title: str, num_batches: int) -> None:
        self.title = title
        self.num_batches = num_batches
        self._batches = self._images = 0
        self._start = monotonic()

    def done(self, num_images: int) -> None:
        """One more batch, of so many images."""
        self._batches += 1
        self._images += num_images
        is_last = self._batches == self.num_batches
        left = (monotonic() - self._start) / self._batches * (self.num_batches - self._batches)
        text = f'{self.title}: {self._batches} of {self.num_batches} batches, {left:.0f} s left'
        if sys.stderr.isatty():
            print(f'\r{text:<60}', end='\n' if is_last else '', file=sys.stderr, flush=True)
        elif is_last or self._is_new_part():
            print(text, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return f'{self._batches} batches ({self._images} images)'

    def _is_new_part(self) -> bool:
        before, now = (
            _PARTS * each // self.num_batches for each in (self._batches - 1, self._batches))
        return now > before
