"""Plain statistics of a patient's images before any z-score, so that a scan unlike those of the training is noticed.

A z-score hides the scale of the images, and resampling hides what was sharp: both are measured before. Everything is
read off a few planes or a coarse sample, since every patient pays for it.
"""

from __future__ import annotations

import numpy as np

from toolkit.arrays import Voxels
from toolkit.data.reading.door import Images
from toolkit.data.reading.voxels import above_background
from toolkit.data.resample import MemoryOrder

PLANES = 8  # of each image, evenly spread along memory's slowest axis; in each, every third row
ROWS = 3
RIM = 3  # voxels from the mask's border, inside a plane
STEP = 4.0  # mm, of the coarse sample that shows where lesions are
LESION = 1.5  # medians, on FLAIR and on T2; cortex and fluid reach it on one of them only
REACH = 40.0  # mm from the middle of all lesions; a small glioma with its oedema seldom reaches farther
REACH_OF_BALL = 2.0  # radii of a ball of their volume; nor does a large one
GLOBAL = ("volume", "width", "depth", "height", "fill", "scattered")
OF_MODALITY = ("level", "bright", "dark", "noise", "rim", "cover")


def image_statistics(images: Images) -> dict[str, float]:
    """What can be said of the images without a network.

    Args:
        images: as the door lets them in.

    Returns:
        `volume` of the mask, ml; `width`, `depth`, `height` of its box (right, front, up), mm; `fill`, the share of the
        box that is mask, 0 to 1; `scattered`, ml that are bright on FLAIR and on T2 but far from the middle of all
        that is (several metastases raise it, one tumour hardly). Then for each modality, `<modality>_...`, over
        voxels of the mask in their distance from background: `level`, log10 of the median size; `bright` and `dark`,
        99th and 5th percentile in units of the median; `noise`, median size of second differences in units of the
        standard deviation (thermal noise raises it, blurring lowers it); `rim`, median within 3 voxels of the mask's
        border in units of the median (scalp and skull change it); `cover`, the share of the mask that differs from
        background. All are finite. What would need a modality that is missing is left out.
    """
    edges, shape = images.edges, images.mask.shape
    order = MemoryOrder.of(images.mask)
    whole = _planes(images.mask, order)  # (PLANES, middle, fast) in memory's order
    mask, rim = whole[:, ::ROWS], (whole & ~_eroded(whole))[:, ::ROWS]
    found = {"volume": images.brain_ml}
    found |= {name: float(n * edge) for name, n, edge in zip(("width", "depth", "height"), shape, edges, strict=True)}
    found["fill"] = float(np.count_nonzero(images.mask) / images.mask.size)
    if images.missing not in ("flair", "t2"):
        found["scattered"] = _scattered(images)
    for name, voxels in images.voxels.items():
        if name == images.missing:
            continue
        values, largest = _scaled(images, name, _planes(voxels, order)[:, ::ROWS])
        numbers = _of_modality(values, mask, rim)
        numbers["level"] += np.log10(largest) + np.log10(abs(float(images.slopes[name])))
        found |= {f"{name}_{key}": float(value) for key, value in numbers.items()}
    return found


def _scattered(images: Images) -> float:
    """Volume that is bright on FLAIR and T2 and is farther from the middle of all that is than one tumour would, ml.

    The middle is the median along each axis: it stays in the tumour while that holds most of what is bright. One tumour
    of that volume is taken to reach twice as far as a ball would. Regions are not told apart: that takes SciPy, which
    prediction does not load, and found fewer metastases in phantoms.
    """
    strides = [max(1, round(STEP / edge)) for edge in images.edges]
    sample = tuple(slice(stride // 2, None, stride) for stride in strides)
    mask = images.mask[sample]
    bright = mask.copy()
    for name in ("flair", "t2"):
        values, _ = _scaled(images, name, images.voxels[name][sample])
        bright &= values > LESION * abs(_median(values[mask & (values != 0)]))
    steps = np.asarray(strides) * images.edges
    places = np.argwhere(bright) * steps  # (N, 3), mm
    if not len(places):
        return 0.0
    ball = (len(places) * steps.prod() * 3 / (4 * np.pi)) ** (1 / 3)
    away = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    return float(np.count_nonzero(away > max(REACH, REACH_OF_BALL * ball)) * steps.prod() / 1000)


def _scaled(images: Images, name: str, voxels: Voxels) -> tuple[Voxels, float]:
    """Some voxels of a modality as distances from background, float32 of size 1 at most, and their unit."""
    values = above_background(voxels, images.background[name])
    largest = float(np.abs(values).max(initial=0)) or 1.0
    return (values / largest).astype(np.float32) * np.sign(images.slopes[name]), largest  # nothing overflows


def _planes(volume: Voxels, order: MemoryOrder) -> Voxels:
    stored = order.along(volume)
    chosen: Voxels = stored[np.linspace(0, len(stored) - 1, PLANES + 2).round().astype(int)[1:-1]]
    return chosen


def _eroded(mask: Voxels) -> Voxels:
    """Voxels whose neighbours at RIM voxels, along both axes of the plane, are in the mask too."""
    inner = np.zeros_like(mask)
    r = RIM
    inner[:, r:-r, r:-r] = (
        mask[:, r:-r, r:-r]
        & mask[:, 2 * r :, r:-r]
        & mask[:, : -2 * r, r:-r]
        & mask[:, r:-r, 2 * r :]
        & mask[:, r:-r, : -2 * r]
    )
    return inner


def _of_modality(values: Voxels, mask: Voxels, rim: Voxels) -> dict[str, float]:
    """The six of one modality; values (planes, middle, fast) of size 1 at most, `level` in their unit."""
    inside = values[mask]
    signal = inside[inside != 0]
    low, middle, high = _quantiles(signal, 0.05, 0.5, 0.99)
    unit = abs(middle) or 1.0
    three = mask[..., :-2] & mask[..., 1:-1] & mask[..., 2:]
    bends = (values[..., :-2] - 2 * values[..., 1:-1] + values[..., 2:])[three]
    return {
        "level": np.log10(unit),
        "bright": high / unit,
        "dark": low / unit,
        "noise": _median(np.abs(bends)) / (inside.std() or 1.0) if len(inside) else 0.0,
        "rim": _median(values[rim]) / unit,
        "cover": len(signal) / max(len(inside), 1),
    }


def _median(values: Voxels) -> float:
    return _quantiles(values, 0.5)[0]


def _quantiles(values: Voxels, *shares: float) -> list[float]:
    """As `np.quantile`, 0 of nothing; NumPy's vectorised sort of float32 is eight times as fast as its partition."""
    if not len(values):
        return [0.0] * len(shares)
    ordered = np.sort(values)
    found = []
    for share in shares:
        below, rest = divmod(share * (len(ordered) - 1), 1)
        low, high = (float(ordered[min(int(below) + step, len(ordered) - 1)]) for step in (0, 1))
        found.append(low + rest * (high - low))
    return found
