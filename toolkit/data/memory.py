"""Memory that a thread uses again for one patient after the other: fresh pages cost as much as decompression itself."""

from __future__ import annotations

import math
import threading
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

Buffer: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
_per_thread = threading.local()


class Scratch:
    """One piece of memory; it grows to the largest that was asked for."""

    def __init__(self) -> None:
        self._memory: Buffer = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> Buffer:
        """The first `nbytes` bytes; what they held before is lost."""
        if len(self._memory) < nbytes:
            self._memory = np.empty(nbytes, np.uint8)
        return self._memory[:nbytes]


def scratch(name: str) -> Scratch:
    """This thread's memory of a name."""
    kept: dict[str, Scratch] = _per_thread.__dict__.setdefault("scratch", {})
    return kept.setdefault(name, Scratch())


def scratch_array(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray[Any, Any]:
    """An array in this thread's memory of a name, not initialised; good until the name is asked for again."""
    wanted = np.dtype(dtype)
    return scratch(name).take(math.prod(shape) * wanted.itemsize).view(wanted).reshape(shape)
