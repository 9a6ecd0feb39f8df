"""Shared memory in which processes hand over arrays without a copy.

It has no name: no file stays in `/dev/shm`, whatever ends which process, and a container's small `/dev/shm` does not
limit it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import weakref
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

SLOT = 72 << 20  # bytes: a brain of 4 million voxels in four modalities of float32, and its mask
_ALIGN = 64


class Packed(NamedTuple):
    """An object as it travels: pickled, but for those of its arrays that are in the slot.

    Attributes:
        content: the pickle.
        spans: where in the slot each array that is left out begins, and its bytes.
    """

    content: bytes
    spans: tuple[tuple[int, int], ...]


class Slots:
    """So many pieces of one size; the side that hands them out.

    Args:
        count: of the slots. They take memory once they are written to.
        on_free: called, in any thread, when a slot is free again.
    """

    def __init__(self, count: int, on_free: Callable[[], object]) -> None:
        self.file = os.memfd_create("grade-readers")
        os.ftruncate(self.file, count * SLOT)
        self._memory = mmap.mmap(self.file, count * SLOT)
        self._free = list(range(count))[::-1]
        self._on_free: Callable[[], object] = on_free

    def close(self) -> None:
        """The memory goes with the last array that is still held; without waiting for Python's garbage collector."""
        os.close(self.file)
        self._on_free = int
        del self._memory

    def address_of(self, array: np.ndarray[Any, Any]) -> int | None:
        """Where the slot begins that an array is in; None for other memory."""
        begin = np.frombuffer(self._memory, np.uint8).ctypes.data
        place = array.ctypes.data - begin
        return begin + place // SLOT * SLOT if 0 <= place < len(self._memory) else None

    def take(self) -> int | None:
        """A free slot, the one that was used last if possible: its pages are there. None: all are in use."""
        return self._free.pop() if self._free else None

    def free(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)
        self._on_free()

    def unpack(self, packed: Packed, slot: int | None) -> Any:
        """The object; its slot is free again when the last of the arrays in it is gone."""
        if slot is None or not packed.spans:
            if slot is not None:
                self.free(slot)
            return pickle.loads(packed.content)  # noqa: S301 - of our own process
        lease = (ctypes.c_uint8 * SLOT).from_buffer(self._memory, slot * SLOT)
        weakref.finalize(lease, self.free, slot).atexit = False
        whole = np.frombuffer(memoryview(lease), np.uint8)
        views = [whole[start : start + size] for start, size in packed.spans]
        return pickle.loads(packed.content, buffers=views)  # noqa: S301


class Place:
    """A slot as the process sees that fills it.

    Args:
        file: from `Slots.file`.
    """

    def __init__(self, file: int) -> None:
        self._memory = np.frombuffer(mmap.mmap(file, os.fstat(file).st_size), np.uint8)
        self._slot = self._memory[:0]
        self._used = 0

    def begin(self, slot: int | None) -> None:
        """Fill this slot from now on; None: no slot, so that arrays travel inside the pickle."""
        self._used = 0
        self._slot = self._memory[:0] if slot is None else self._memory[slot * SLOT : (slot + 1) * SLOT]

    def array(self, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> np.ndarray[Any, Any]:
        """An array in the slot, not initialised; in ordinary memory where the slot has no room."""
        wanted = np.dtype(dtype)
        size = prod(shape) * wanted.itemsize
        start = -(-self._used // _ALIGN) * _ALIGN
        if start + size > len(self._slot):
            return np.empty(shape, wanted)
        self._used = start + size
        return self._slot[start : start + size].view(wanted).reshape(shape)

    def pack(self, found: object) -> Packed:
        """An object whose arrays may be in the slot."""
        spans: list[tuple[int, int]] = []
        begin = self._slot.ctypes.data

        def travels(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            start = np.frombuffer(view, np.uint8).ctypes.data - begin if view.nbytes else -1
            if not 0 <= start <= len(self._slot) - view.nbytes:
                return True
            spans.append((start, view.nbytes))
            return False

        content = pickle.dumps(found, protocol=5, buffer_callback=travels)
        return Packed(content, tuple(spans))
