"""Images in order along the normal of their plane; whatever does not make one volume is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.hospital.study.facts import Frame, Header

ALIKE = ("rows", "columns", "samples", "photometric", "sop_class", "patient", "modality")  # in all files of a series
MOST_VOXELS = 128_000_000  # 512 MB as float32
_SAME_PLACE = 0.01  # mm
_SPACING = 0.02  # share of the slice distance, and
_SPACING_MM = 0.05  # mm: what a header's rounding may add
_TURN = 1e-3  # of a direction cosine


class Slot(NamedTuple):
    """One image of a stack: the file that holds it and which of its images it is."""

    header: Header
    frame: Frame


@dataclass(frozen=True)
class Stack:
    """Images in order along the normal of their plane.

    Attributes:
        slots: in order.
        affine: float64 (4, 4), (column, row, slice) -> mm, RAS+.
        spacing: mm along columns' index, rows' index, slices.
        plane: `axial`, `sagittal` or `coronal`, whichever is nearest.
    """

    slots: tuple[Slot, ...]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    plane: str

    @property
    def extent(self) -> tuple[float, float, float]:
        """Size in mm along columns' index, rows' index, slices."""
        head = self.slots[0].header
        sides = head.columns, head.rows, len(self.slots)
        return tuple(n * edge for n, edge in zip(sides, self.spacing, strict=True))  # type: ignore[return-value]


class UnusableSeries(Exception):
    """The images of a series make no volume; the text says why."""


def build_stack(instances: Sequence[Header]) -> Stack:
    """The images of a series in order.

    Args:
        instances: its files.

    Raises:
        UnusableSeries: they make no volume: gaps, images twice at one place, several orientations, a tilt, colour,
            a rescale slope that is 0, no number, or missing in some of the images.
    """
    _same_files(instances)
    slots = [Slot(header, frame) for header in instances for frame in header.frames]
    if not slots:
        raise UnusableSeries("has no images with a place in space")
    head = slots[0].header
    if len(slots) * head.rows * head.columns > MOST_VOXELS:
        raise UnusableSeries(
            f"asks for {len(slots)} x {head.rows} x {head.columns} voxels; the limit is {MOST_VOXELS // 10**6} million"
        )
    for slot in slots:
        for what, value in (("position", slot.frame.position), ("spacing", slot.frame.spacing)):
            if value is None:
                raise UnusableSeries(f"{slot.header.source.name} has no usable {what}")
        if slot.frame.orientation is None:
            raise UnusableSeries(f"{slot.header.source.name} has no usable orientation")
    _rescaled_alike(slots)
    axes, edges = _plane(slots)
    return _in_order(slots, axes, edges)


def _same_files(instances: Sequence[Header]) -> None:
    """All files of a series agree on what one volume needs, and each is there once."""
    for what in ALIKE:
        values = Counter(getattr(header, what) for header in instances)
        if len(values) > 1:
            odd = next(header for header in instances if getattr(header, what) != values.most_common(1)[0][0])
            shown = (
                ""
                if what == "patient"
                else f" ({', '.join(str(value) or 'none' for value, _ in values.most_common(3))})"
            )
            raise UnusableSeries(
                f"its files differ in {_SAID.get(what, what)}{shown}; {odd.source.name} is the odd one"
            )
    sops = Counter(header.sop for header in instances)
    sop, times = sops.most_common(1)[0]
    if times > 1:
        names = [header.source.name for header in instances if header.sop == sop][:2]
        raise UnusableSeries(f"{' and '.join(names)} differ and carry the same SOPInstanceUID")
    head = instances[0]
    if not head.rows or not head.columns:
        raise UnusableSeries(f"{head.source.name} has no Rows or Columns")
    if head.samples != 1 or head.photometric != "MONOCHROME2":
        raise UnusableSeries(
            f"holds {head.photometric or 'unknown'} images with {head.samples} samples a voxel, not grey values"
        )
    if head.bits not in (8, 16, 32):
        raise UnusableSeries(f"stores {head.bits} bits a voxel; 8, 16 and 32 are read")


def _rescaled_alike(slots: Sequence[Slot]) -> None:
    """A slope or intercept is a number, and all images have one or none: a default among numbers changes the grey."""
    for slot in slots:
        if slot.frame.unreadable:
            raise UnusableSeries(
                f"{slot.header.source.name} has the rescale {slot.frame.unreadable}, which is not one finite number"
            )
        if slot.frame.slope == 0:
            raise UnusableSeries(f"{slot.header.source.name} has the rescale slope 0")
    for what in ("slope", "intercept"):
        without = [slot for slot in slots if getattr(slot.frame, what) is None]
        if 0 < len(without) < len(slots):
            raise UnusableSeries(
                f"has images with and without a rescale {what}: {len(without)} of {len(slots)} have none, "
                f"{without[0].header.source.name} for one"
            )


_SAID = {
    "sop_class": "their kind",
    "patient": "the patient's id",
    "photometric": "colour",
    "samples": "samples a voxel",
}


def _plane(slots: Sequence[Slot]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The directions that all images share, (3, 3) columns row, column, normal, LPS+; their edges, (2,)."""
    turns = np.array([slot.frame.orientation for slot in slots], np.float64)  # (N, 6)
    usual = np.median(turns, axis=0)
    odd = np.abs(turns - usual).max(axis=1) > _TURN
    if odd.any():
        raise UnusableSeries(
            f"has images in {len(np.unique(turns.round(2), axis=0))} orientations: {odd.sum()} of {len(slots)} "
            f"are turned, {slots[int(odd.argmax())].header.source.name} for one"
        )
    edges = np.array([slot.frame.spacing for slot in slots], np.float64)
    if np.ptp(edges, axis=0).max() > 1e-3 * edges.mean():
        low, high = edges.min(), edges.max()
        raise UnusableSeries(f"has images with different pixel spacings, {low:g} to {high:g} mm")
    if not 0.1 <= edges.min() <= edges.max() <= 10:
        raise UnusableSeries(f"has a pixel spacing of {edges[0][0]:g} x {edges[0][1]:g} mm; 0.1 to 10 mm are read")
    row, column = usual[:3] / np.linalg.norm(usual[:3]), usual[3:] / np.linalg.norm(usual[3:])
    return np.column_stack([row, column, np.cross(row, column)]), edges[0]


def _in_order(slots: Sequence[Slot], axes: NDArray[np.float64], edges: NDArray[np.float64]) -> Stack:
    places = np.array([slot.frame.position for slot in slots], np.float64)  # (N, 3), LPS+
    along = places @ axes[:, 2]
    order = np.argsort(along, kind="stable")
    places, along = places[order], along[order]
    ordered = tuple(slots[index] for index in order)
    if len(ordered) < 2:
        raise UnusableSeries("has 1 image; a volume has at least 2")
    steps = np.diff(along)
    _no_duplicates(ordered, along, steps)
    step = float(np.median(steps))
    _no_gaps(ordered, along, steps, step)
    away = (places - places[0]) @ axes[:, :2]  # (N, 2): how far the stack leans, mm
    if np.abs(away).max() > max(0.1, 2e-3 * (along[-1] - along[0])):
        lean = np.degrees(np.arctan2(np.linalg.norm(away[-1]), along[-1] - along[0]))
        raise UnusableSeries(
            f"is tilted: its slices are shifted against each other, the stack leans by {lean:.1f} degrees"
        )
    mean = float((along[-1] - along[0]) / (len(ordered) - 1))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = axes[:, 0] * edges[1], axes[:, 1] * edges[0], axes[:, 2] * mean
    lps[:3, 3] = places[0]
    plane = ("sagittal", "coronal", "axial")[int(np.abs(axes[:, 2]).argmax())]
    return Stack(ordered, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, (float(edges[1]), float(edges[0]), mean), plane)


def _no_duplicates(slots: Sequence[Slot], along: NDArray[np.float64], steps: NDArray[np.float64]) -> None:
    same = np.flatnonzero(steps < _SAME_PLACE)
    if not len(same):
        return
    first, second = slots[same[0]], slots[same[0] + 1]
    why = ""
    for name, unit in (
        ("te", "echo times {} and {} ms"),
        ("image_type", "image types {} and {}"),
        ("acquired", "times {} and {}"),
    ):
        a, b = getattr(first.frame, name), getattr(second.frame, name)
        if a != b:
            a, b = ("\\".join(value) if isinstance(value, tuple) else _short(value) for value in (a, b))
            why = f" ({unit.format(a, b)})"
            break
    raise UnusableSeries(
        f"has {len(same) + 1} of {len(slots)} images at positions taken twice{why}: "
        f"{first.header.source.name} and {second.header.source.name} are both at {along[same[0]]:.1f} mm"
    )


def _no_gaps(slots: Sequence[Slot], along: NDArray[np.float64], steps: NDArray[np.float64], step: float) -> None:
    odd = np.flatnonzero(np.abs(steps - step) > max(_SPACING * step, _SPACING_MM))
    if not len(odd):
        return
    first = odd[int(np.abs(steps[odd] - step).argmax())]
    missing = round(steps[first] / step) - 1
    even = missing > 0 and abs(steps[first] - (missing + 1) * step) < 0.1 * step
    what = f"{missing} slice{'s' * (missing > 1)} missing" if even else "slices at uneven distances"
    raise UnusableSeries(
        f"has {what}: {steps[first]:.2f} mm from {along[first]:.1f} to {along[first + 1]:.1f} mm where others are "
        f"{step:.2f} mm apart"
    )


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
