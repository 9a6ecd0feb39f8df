"""Pictures of a patient that need no viewer: slices with evidence, and the probability among those of others."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from deploy.report.region import Voxel
from deploy.results.record import Record
from deploy.runtime import Array
from toolkit.data.patients import CLASSES
from toolkit.data.wording import TITLES
from toolkit.evaluation.pages.drawing import FIRST, INK, SECOND

OPACITY = 0.75  # of full colour; below it falls with the evidence
EDGES = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}  # left, right, top and bottom of the picture
_ZOOM = 3  # of the contour's picture, so that its line is thin
_ORANGE, _BLUE = (1.0, 0.45, 0.1), (0.2, 0.55, 1.0)


class Slice(NamedTuple):
    """A slice through the strongest evidence.

    Attributes:
        title: modality and plane.
        image: PNG as a data address.
        over: the same, with evidence and contour, transparent elsewhere.
        edges: letters at the left, right, top and bottom.
        width: mm.
        height: mm.
    """

    title: str
    image: str
    over: str
    edges: str
    width: float
    height: float


class Scene(NamedTuple):
    """What slices are cut from, on the cut images.

    Attributes:
        greys: modality -> uint8 (X, Y, Z), 0 outside the brain, and the level that is white.
        evidence: float32 (X, Y, Z), logits.
        mask: bool (X, Y, Z).
        edges: size of a voxel, mm (3,).
        scale: logits of full colour.
        outlined: bool (X, Y, Z), the region that is outlined.
    """

    greys: dict[str, tuple[NDArray[np.uint8], float]]
    evidence: Array
    mask: NDArray[np.bool_]
    edges: NDArray[np.float64]
    scale: float
    outlined: NDArray[np.bool_]


def slices(scene: Scene, voxel: Voxel) -> list[Slice]:
    """Four axial slices, then a coronal and a sagittal one of T1 with contrast and FLAIR, all through one voxel."""
    wanted = {"axial": tuple(scene.greys), "coronal": ("flair", "t1ce"), "sagittal": ("flair", "t1ce")}
    return [one for plane, names in wanted.items() for one in _of_plane(scene, voxel, plane, names)]


def draw_probability(figure: Figure, record: Record, reference: dict[str, tuple[float, ...]]) -> None:
    """The patient's probability on a line with the threshold and the validation patients of either grade."""
    axes = figure.add_subplot(xlabel=f"probability of {CLASSES[1]}")
    for row, (name, colour) in enumerate(zip(CLASSES, (FIRST, SECOND), strict=True)):
        values = np.array(reference.get(name, ()))
        lift = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))  # so that equal ones are seen
        axes.plot(values, row + lift, "o", color=colour, alpha=0.55, markersize=5, clip_on=False)
    axes.axvline(record.threshold, color=INK, linestyle=":", alpha=0.7)
    if record.probability is not None:
        axes.axvline(record.probability, color=INK, linewidth=2.5)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.6, len(CLASSES) - 0.4), yticks=range(len(CLASSES)), yticklabels=CLASSES)
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)


def _of_plane(scene: Scene, voxel: Voxel, plane: str, names: tuple[str, ...]) -> Iterator[Slice]:
    across, up, through = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}[plane]
    where = tuple(voxel[axis] if axis == through else slice(None) for axis in range(3))

    def cut(volume: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = volume[where]
        return found  # axes in rising order: across, then up

    mask, evidence, region = cut(scene.mask), cut(scene.evidence), cut(scene.outlined)
    width, height = (float(mask.shape[i] * scene.edges[axis]) for i, axis in enumerate((across, up)))
    over = _png(_overlay(evidence / scene.scale, mask, region))
    for name in names:
        voxels, white = scene.greys[name]
        image = _png(colormaps["gray"](_windowed(cut(voxels), white)))
        yield Slice(f"{TITLES[name]}, {plane}", image, over, EDGES[plane], width, height)


def _windowed(levels: NDArray[np.uint8], white: float) -> NDArray[np.float64]:
    """Levels as the viewer shows them at first, 0 to 1: the brain's darkest, 1, is black."""
    return np.where(levels, np.clip((levels - 1.0) / max(white - 1, 1e-6), 0, 1), 0.0)


def _overlay(
    evidence: NDArray[np.floating[Any]], mask: NDArray[np.bool_], region: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(U, V) evidence, full at 1, to RGBA, three pixels a voxel: warm for HGG, blue for LGG, the outline in white."""
    fine, inside, outlined = (np.repeat(np.repeat(plane, _ZOOM, 0), _ZOOM, 1) for plane in (evidence, mask, region))
    colours = np.where((fine > 0)[..., None], (*_ORANGE, 0.0), (*_BLUE, 0.0))
    colours[..., 3] = np.where(inside, OPACITY * np.clip(np.abs(fine), 0, 1), 0)
    colours[outlined & ~_eroded(outlined)] = (1, 1, 1, 0.9)
    return colours


def _eroded(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(region, 1)
    found: NDArray[np.bool_] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return found


def _png(rgba: NDArray[Any]) -> str:
    """(U, V, 4), rising to the right or front and upwards, as radiologists look at it: right and front on the left."""
    stream = io.BytesIO()
    seen = (255 * rgba[::-1, ::-1].transpose(1, 0, 2)).round().astype(np.uint8)
    imsave(stream, np.ascontiguousarray(seen), format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
