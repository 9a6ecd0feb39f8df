"""Memory used again for one patient after the other: fresh pages cost as much as decompression itself."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

Buffer: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


class Scratch:
    """One piece of memory; it grows to the largest that was asked for."""

    def __init__(self) -> None:
        self._memory: Buffer = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> Buffer:
        """The first `nbytes` bytes; what they held before is lost."""
        if len(self._memory) < nbytes:
            self._memory = np.empty(nbytes, np.uint8)
        return self._memory[:nbytes]

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray[Any, Any]:
        """An array in this memory, not initialised; good until the next one is asked for."""
        wanted = np.dtype(dtype)
        return self.take(math.prod(shape) * wanted.itemsize).view(wanted).reshape(shape)


@dataclass(frozen=True)
class ResampleMemory:
    """What `Resampler` works in.

    Attributes:
        loaded: a slab of the volume.
        half: the slab after the first axis.
        small: the volume after the second.
        result: after the third.
    """

    loaded: Scratch = field(default_factory=Scratch)
    half: Scratch = field(default_factory=Scratch)
    small: Scratch = field(default_factory=Scratch)
    result: Scratch = field(default_factory=Scratch)


@dataclass(frozen=True)
class Workspace:
    """What reading a patient works in; one reader uses it at a time.

    Attributes:
        t1: the decompressed file; `t1ce`, `t2`, `flair` as well.
        mask: of the brain, in the whole volume.
        slab: a few planes of the mask, of one modality.
        share: how much of each voxel of the grid is brain.
        work: some planes of a modality on the grid.
        resample: see there.
        out: makes the arrays that outlive the reading: of a shape and a dtype, not initialised.
    """

    t1: Scratch = field(default_factory=Scratch)
    t1ce: Scratch = field(default_factory=Scratch)
    t2: Scratch = field(default_factory=Scratch)
    flair: Scratch = field(default_factory=Scratch)
    mask: Scratch = field(default_factory=Scratch)
    slab: Scratch = field(default_factory=Scratch)
    share: Scratch = field(default_factory=Scratch)
    work: Scratch = field(default_factory=Scratch)
    resample: ResampleMemory = field(default_factory=ResampleMemory)
    out: Callable[[tuple[int, ...], DTypeLike], np.ndarray[Any, Any]] = np.empty

    def file(self, modality: str) -> Scratch:
        """Where the file of a modality is decompressed to."""
        return {"t1": self.t1, "t1ce": self.t1ce, "t2": self.t2, "flair": self.flair}[modality]


class Workspaces(threading.local):
    """A workspace for each thread that looks at `mine`."""

    def __init__(self) -> None:
        self.mine = Workspace()
