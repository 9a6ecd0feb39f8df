"""Gunzip on the card: nvCOMP's batched gzip, from page-locked memory, against libdeflate in threads.

    python -m benchmarks.nvcomp COHORT LIBNVCOMP --out nvcomp.json

LIBNVCOMP is `libnvcomp.so.6` of the wheel nvidia-libnvcomp-cu13. The card works on all files of all patients at once,
one stream each; the files are there already, packed, in page-locked memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from time import perf_counter
from typing import Any

import imagecodecs
import numpy as np
import torch

from benchmarks.common import arguments, report
from toolkit.machine import cores

FILES = 4  # of a patient
TURNS = 4
NAIVE = 0  # the algorithm; "lookahead", 1, took eight times as long
CUDA_BACKEND = 2
ALIGNED = 256  # bytes
COLUMNS = ("what", "patients", "ms a patient", "of it the copy", "GB/s out", "all bytes right")


class Options(ctypes.Structure):
    """nvcompBatchedGzipDecompressOpts_t."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("backend", "algorithm", "sort")),
        ("reserved", ctypes.c_char * 52),
    )


def length(packed: bytes) -> int:
    """Bytes of what a gzip file holds, as its last four say."""
    return int.from_bytes(packed[-4:], "little")


def on_processor(packed: Sequence[bytes]) -> float:
    """Seconds of libdeflate in as many threads as there are cores, each into memory that it uses again."""
    most, own = max(map(length, packed)), local()

    def gunzip(one: bytes) -> int:
        if not hasattr(own, "out"):
            own.out = bytearray(most)
        return len(imagecodecs.gzip_decode(one, out=memoryview(own.out)[: length(one)]))

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(gunzip, packed[: FILES * cores()]))
        start = perf_counter()
        list(pool.map(gunzip, packed))
        return perf_counter() - start


class OnCard:
    """The packed files in page-locked memory, and room for what they hold on the card.

    Args:
        library: libnvcomp.
        packed: gzip files.

    Raises:
        RuntimeError: nvCOMP's status is not 0.
    """

    def __init__(self, library: ctypes.CDLL, packed: Sequence[bytes]) -> None:
        self._library, self._packed, self._options = library, packed, Options(CUDA_BACKEND, NAIVE, 0, b"")
        sizes = [length(one) for one in packed]
        self._starts, self._ends = (_places(lengths) for lengths in ([len(one) for one in packed], sizes))
        self._host = torch.empty(int(self._starts[-1]), dtype=torch.uint8, pin_memory=True)
        for start, one in zip(self._starts, packed, strict=False):
            self._host.numpy()[start : start + len(one)] = np.frombuffer(one, np.uint8)
        self._card = torch.empty(len(self._host), dtype=torch.uint8, device="cuda")
        self._out = torch.zeros(int(self._ends[-1]), dtype=torch.uint8, device="cuda")
        self._from, self._to = (
            torch.from_numpy(places[:-1]).cuda() + memory.data_ptr()
            for places, memory in ((self._starts, self._card), (self._ends, self._out))
        )
        self._lengths = torch.tensor([len(one) for one in packed], dtype=torch.int64, device="cuda")
        self._sizes = torch.tensor(sizes, dtype=torch.int64, device="cuda")
        self._found = torch.zeros(len(packed), dtype=torch.int64, device="cuda")
        self._status = torch.zeros(len(packed), dtype=torch.int32, device="cuda")
        needed, size, pointer = ctypes.c_size_t(), ctypes.c_size_t, ctypes.c_void_p
        ask = library.nvcompBatchedGzipDecompressGetTempSize
        ask.argtypes = [size, size, Options, ctypes.POINTER(size), size, pointer]
        _check(ask(len(packed), max(sizes), self._options, ctypes.byref(needed), sum(sizes), _stream()))
        self._scratch = torch.empty(max(1, needed.value), dtype=torch.uint8, device="cuda")
        library.nvcompBatchedGzipDecompressAsync.argtypes = [
            pointer, pointer, pointer, pointer, size, pointer, size, pointer, Options, pointer, pointer,
        ]  # fmt: skip

    def turn(self) -> tuple[float, float]:
        """Seconds of the copy to the card, and of the work there."""
        torch.cuda.synchronize()
        start = perf_counter()
        self._card.copy_(self._host, non_blocking=True)
        torch.cuda.synchronize()
        copied = perf_counter()
        _check(
            self._library.nvcompBatchedGzipDecompressAsync(
                *(of.data_ptr() for of in (self._from, self._lengths, self._sizes, self._found)),
                len(self._packed),
                self._scratch.data_ptr(),
                len(self._scratch),
                self._to.data_ptr(),
                self._options,
                self._status.data_ptr(),
                _stream(),
            )
        )
        torch.cuda.synchronize()
        return copied - start, perf_counter() - copied

    def right(self) -> bool:
        """Whether all lengths are those that the files name, and the first patient's bytes those of libdeflate."""
        if self._status.any() or not torch.equal(self._found, self._sizes):
            return False
        firsts = zip(self._ends, self._packed[:FILES], strict=False)
        return all(
            self._out[int(at) : int(at) + length(one)].cpu().numpy().tobytes() == imagecodecs.gzip_decode(one)
            for at, one in firsts
        )


def _places(lengths: Sequence[int]) -> np.ndarray:
    """Where each begins, and where the last ends: int64 (n + 1,)."""
    return np.cumsum([0] + [-(-one // ALIGNED) * ALIGNED for one in lengths]).astype(np.int64)


def _stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"nvCOMP ends with status {status}")


def measured(library: ctypes.CDLL, packed: Sequence[bytes]) -> tuple[Any, ...]:
    """A row of the table: the best of some turns."""
    patients, card = len(packed) // FILES, OnCard(library, packed)
    times = [card.turn() for _ in range(TURNS)]
    copy, work = (min(one[part] for one in times) for part in (0, 1))
    out = sum(map(length, packed)) / work / 1e9
    return ("nvCOMP", patients, 1000 * (copy + work) / patients, 1000 * copy / patients, out, card.right())


def main() -> None:
    """Print ms a patient, for few patients and for many."""
    given = arguments(
        "Gunzip on the card against libdeflate.",
        ("cohort", {"type": Path}),
        ("library", {"type": Path, "help": "libnvcomp.so.6"}),
        ("--patients", {"type": int, "nargs": "+", "default": [8, 60, 240]}),
    )
    files = [file for file in sorted(given.cohort.rglob("*.nii.gz")) if not file.name.endswith("seg.nii.gz")]
    packed = [file.read_bytes() for file in files]
    library, rows = ctypes.CDLL(str(given.library)), []
    for patients in given.patients:
        some = [packed[k % len(packed)] for k in range(FILES * patients)]
        seconds = on_processor(some)
        rows.append((f"libdeflate, {cores()} threads", patients, 1000 * seconds / patients, 0.0, 0.0, True))
        rows.append(measured(library, some))
        torch.cuda.empty_cache()
    report("gunzip", COLUMNS, rows, given.out)


if __name__ == "__main__":
    main()
