"""A series as voxels in space: every image decoded, rescaled by its own slope, put where its header says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deploy.hospital.study.files import Files, require
from deploy.hospital.study.series import Series
from deploy.hospital.study.source import UnreadableFile
from deploy.hospital.study.stack import Slot, UnusableSeries
from deploy.hospital.volume import Volume
from toolkit.errors import PatientRefused

if TYPE_CHECKING:
    from deploy.hospital.study.facts import Header

LARGEST_VALUE = 1e9  # beyond: a damaged slope


def read_volume(series: Series) -> Volume:
    """The voxels of a series.

    Args:
        series: one that `choose_series` chose.

    Returns:
        Voxels in the order (column, row, slice), float32 after rescaling, with the affine of the headers.

    Raises:
        PatientRefused: its images make no volume, cannot be decoded, or are empty.
        RuntimeUnavailable: a codec of the extra `hospital` is missing.
    """
    require("pydicom")
    try:
        stack = series.stack
        head = stack.slots[0].header
        voxels = np.empty((head.columns, head.rows, len(stack.slots)), np.float32)  # (X, Y, Z)
        with np.errstate(over="ignore", invalid="ignore"):
            for place, slot, pixels in _decoded(stack.slots):
                slope = 1.0 if slot.frame.slope is None else slot.frame.slope
                voxels[:, :, place] = (pixels.astype(np.float64) * slope + (slot.frame.intercept or 0.0)).T
        _believable(voxels, stack.slots)
    except (UnusableSeries, UnreadableFile) as reason:
        raise PatientRefused(f"series {series.name} {reason}") from None
    return Volume(voxels, stack.affine)


def _decoded(slots: Sequence[Slot]) -> Iterator[tuple[int, Slot, NDArray[np.generic]]]:
    """Place in the stack, slot, pixels (rows, columns); each file is opened once."""
    from deploy.hospital.study.pixels import open_pixels

    places: dict[Header, list[int]] = {}
    for place, slot in enumerate(slots):
        places.setdefault(slot.header, []).append(place)
    with Files() as files:
        for header, wanted in places.items():
            with open_pixels(header, files) as decode:
                for place in wanted:
                    yield place, slots[place], decode(slots[place].frame.index)


def _believable(voxels: NDArray[np.float32], slots: Sequence[Slot]) -> None:
    for place, slot in enumerate(slots):
        low, high = float(voxels[:, :, place].min()), float(voxels[:, :, place].max())
        if not -LARGEST_VALUE < low <= high < LARGEST_VALUE:
            raise UnusableSeries(f"has values from {low:g} to {high:g} in {slot.header.source.name}: a damaged slope?")
    if voxels.min() == voxels.max():
        raise UnusableSeries(f"is empty: every voxel is {voxels.flat[0]:g}")
