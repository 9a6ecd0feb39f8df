"""Preprocessing where the network runs: a small ONNX graph that turns a patient's box into the network's input.

`toolkit.data.scan` is the reference; what the graph computes is compared with it before anybody is graded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import onnxruntime

from deploy.runtime import Array
from deploy.runtimes.onnx import RUN_ERRORS, OnnxRuntime
from deploy.tensorrt import cuda
from toolkit.arrays import Float32
from toolkit.config import Grid
from toolkit.data.box import Box, box_of
from toolkit.data.memory import Workspace
from toolkit.data.patients import MODALITIES
from toolkit.data.reading.door import Images
from toolkit.data.scan import make_scan, reaches
from toolkit.data.workers.slots import SLOT, Slots
from toolkit.errors import RuntimeUnavailable
from toolkit.files import first_line

LIMIT = 2e-3  # of a z-score, by which the graph may differ from the reference
OUT = "scan"  # the graphs' output; their inputs are in `deploy/export/preparation.py`, which writes them


def prepared_graph(kind: str) -> bytes:
    """The graph for int16, float32 or a finished `scan`; a file, since prediction is installed without onnx."""
    return (files("deploy.runtimes") / f"prepare_{kind}.onnx").read_bytes()


@dataclass(frozen=True)
class CardScans:
    """A batch in the memory of the device, or some rows of it; float32 (B, 4, X, Y, Z).

    Attributes:
        memory: all rows.
        first: row that this begins with.
        shape: of what this is.
    """

    memory: Any
    first: int
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> CardScans:
        start, stop, _ = rows.indices(len(self))
        return CardScans(self.memory, self.first + start, (stop - start, *self.shape[1:]))

    @property
    def address(self) -> int:
        """On the device."""
        return int(self.memory.data_ptr()) + self.first * int(np.prod(self.shape[1:])) * np.dtype(np.float32).itemsize

    def on_host(self) -> Array:
        """A copy for a runtime that takes it from the host."""
        copy: Array = np.array(self.memory.numpy()[self.first : self.first + len(self)])
        return copy


class Card:
    """Makes scans of boxes, row by row of a batch that stays on the device.

    Args:
        runtime: that answers them.
        batch: rows.
        slots: where boxes come from; the driver is told of each slot once, since page-locked memory is copied faster.

    Raises:
        RuntimeUnavailable: the device has no room for the batch.
    """

    def __init__(self, runtime: OnnxRuntime, batch: int, slots: Slots | None = None) -> None:
        self._runtime, self._grid = runtime, Grid(**runtime.model.manifest.grid.model_dump())
        self._near = near(self._grid)
        shape = (batch, len(MODALITIES), *self._grid.shape)
        self._sessions: dict[str, Any] = {}
        self._slots = slots if runtime.device != "cpu" and cuda.cards() else None
        self._locked: set[int] = set()
        try:
            memory = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32), *runtime.place)
        except RUN_ERRORS as error:
            raise RuntimeUnavailable(f"{runtime.device} has no room for {batch} scans: {first_line(error)}.") from error
        self._scans = CardScans(memory, 0, shape)

    @property
    def scans(self) -> CardScans:
        """See `Preparer`."""
        return self._scans

    def close(self) -> None:
        """Let the driver forget the slots, before their memory is gone."""
        for address in self._locked:
            cuda.page_unlock(address)
        self._locked.clear()

    def fill(self, row: int, box: Box) -> None:
        """Make the scan of a box in a row of the batch; the box is no longer needed then."""
        self._page_lock(box.voxels)
        x, y, z = box.matrices
        given = {"voxels": box.voxels, "mask": box.mask, "x": x, "y": y, "z": z, "signs": box.signs}
        self._run(box.voxels.dtype.name, row, given | self._near)

    def put(self, row: int, scan: Array) -> None:
        """Copy a finished scan (4, X, Y, Z) to a row of the batch."""
        self._page_lock(scan)
        self._run("scan", row, {"voxels": scan[None]})

    def prove(self) -> float:
        """Compare with the reference on a synthetic patient, in both kinds of voxels.

        Returns:
            The largest difference of a z-score.

        Raises:
            RuntimeUnavailable: it is more than `LIMIT`.
        """
        worst = 0.0
        for dtype in (np.int16, np.float32):
            images = _synthetic(dtype)
            box = box_of(images, self._grid, Workspace())
            if box is not None:
                self.fill(0, box)
                off = np.abs(self.scans[:1].on_host()[0] - make_scan(images, self._grid, Workspace()).data)
                worst = max(worst, float(off.max()) if np.isfinite(off).all() else np.inf)
        if worst > LIMIT:
            raise RuntimeUnavailable(
                f"the preprocessing on {self._runtime.device} differs by {worst:.2g} in a z-score from that on the"
                f' processor, more than {LIMIT:g}; set readers = "threads" under [predict], which leaves it there.'
            )
        return worst

    def _run(self, kind: str, row: int, given: Mapping[str, np.ndarray[Any, Any]]) -> None:
        if kind not in self._sessions:
            self._sessions[kind] = self._runtime.open_beside(prepared_graph(kind))
        target = self.scans[row : row + 1]
        try:
            binding = self._sessions[kind].io_binding()
            for name, array in given.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            binding.bind_output(OUT, *self._runtime.place, np.float32, list(target.shape), target.address)
            self._sessions[kind].run_with_iobinding(binding)
        except RUN_ERRORS as error:
            raise RuntimeUnavailable(
                f"the preprocessing failed on {self._runtime.device}: {first_line(error)};"
                ' set readers = "threads" under [predict], which leaves it to the processor.'
            ) from error

    def _page_lock(self, array: np.ndarray[Any, Any]) -> None:
        if self._slots is None:
            return
        address = self._slots.address_of(array)
        if address is not None and address not in self._locked:
            try:
                cuda.page_lock(address, SLOT)
            except RuntimeUnavailable:
                self._slots = None  # copies are slower then, and no less right
            else:
                self._locked.add(address)


def near(grid: Grid) -> dict[str, Float32]:
    """Which voxels of an axis of the grid are in reach of each other: `rim_x` to `inside_z`, 1 or 0, (out, out)."""
    found = {}
    for name, reach in zip(("rim", "inside"), reaches(grid.spacing), strict=True):
        for axis, size in zip("xyz", grid.shape, strict=True):
            places = np.arange(size)
            found[f"{name}_{axis}"] = (np.abs(places - places[:, None]) <= reach).astype(np.float32)
    return found


def _synthetic(dtype: type) -> Images:
    """Checked images of an ellipsoid of noise, oddly shaped and turned."""
    rng = np.random.default_rng(0)
    shape = (61, 83, 47)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    mask = np.asfortranarray(sum(axis**2 for axis in axes) <= 1)[::-1]
    voxels = {}
    for number, name in enumerate(MODALITIES, start=1):
        noise = rng.gamma(4.0, 100.0 * number, shape).astype(dtype) + dtype(1)
        voxels[name] = np.asfortranarray(np.where(mask[::-1], noise, dtype(0)))[::-1]
    return Images(
        files={},
        seg=None,
        voxels=voxels,
        background=dict.fromkeys(MODALITIES, dtype(0)),
        slopes={"flair": 1.0, "t1": 0.5, "t1ce": -2.0, "t2": 1.0},
        mask=mask,
        box=tuple(slice(0, n) for n in shape),
        shape=shape,
        affine=np.diag([2.0, 1.5, 2.5, 1.0]),
        notes=(),
    )
