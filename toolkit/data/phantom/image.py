"""What a scanner makes of a phantom: four contrasts, vessels, bias field, noise, arbitrary units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from toolkit.arrays import Voxels
from toolkit.data.patients import MODALITIES
from toolkit.data.phantom.brain import Brain, smooth_noise
from toolkit.data.phantom.tumour import Tumour

# Signal relative to white matter, in the order of MODALITIES; rounded from six real BraTS patients.
SIGNAL = {
    "csf": (0.35, 0.42, 0.42, 3.60),
    "grey": (1.15, 0.82, 0.86, 1.35),
    "white": (1.00, 1.00, 1.00, 1.00),
    "oedema": (1.75, 0.86, 0.86, 1.95),
    "core": (1.70, 0.74, 0.76, 2.50),
    "necrosis": (1.45, 0.64, 0.62, 2.90),
}
# Variation of each signal between patients, as a share; that of fluid and tumour depends most on the sequence.
VARIATION = {"csf": 0.2, "grey": 0.05, "white": 0.05, "oedema": 0.1, "core": 0.05, "necrosis": 0.1}
# What a skull-stripping leaves at the brain's border (dura, voxels half outside), in the same unit and order.
EDGE = (0.20, 0.30, 0.30, 0.08)
EDGE_THICKNESS = (0.6, 2.0)  # mm, the depth at which a third of it is left
# Thermal noise of each modality, smallest and largest, in the same unit and order.
NOISE = ((0.008, 0.040), (0.003, 0.016), (0.004, 0.030), (0.015, 0.050))
TEXTURE = (1.0, 0.4, 0.4, 1.0)  # how much of a tumour's texture each modality shows
MISMATCH = 0.6  # FLAIR of the inner core where T2 and FLAIR disagree, as a share of the core's
VESSEL = 1.5  # uptake of vessels, in units of white matter's T1ce


@dataclass(frozen=True)
class Scanner:
    """What a site's scanner does differently.

    Attributes:
        noise: factor of the thermal noise.
        contrast: exponent of the signal relative to white matter, in the order of MODALITIES; below 1 what enhances,
            enhances less.
        blur: standard deviation of the point spread function, mm; 0 is none.
    """

    noise: float = 1.0
    contrast: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    blur: float = 0.0


def draw_images(rng: np.random.Generator, brain: Brain, tumour: Tumour, scanner: Scanner | None = None) -> Voxels:
    """The four modalities of one patient. Nothing here depends on the grade, except through the tumour.

    What is drawn does not depend on the scanner: one patient can be imaged at several sites.

    Args:
        rng: source of contrasts, units, bias fields, noise.
        brain: the anatomy.
        tumour: what grew in it.
        scanner: of the site; None: the first site's.

    Returns:
        int16 (4, n), rows in the order of MODALITIES, columns the brain's voxels; at least 1, for 0 is background.
    """
    scanner = scanner or Scanner()
    grain = rng.spawn(1)[0]  # voxel noise has a stream of its own: what is drawn below does not depend on the grid
    vary = {name: np.exp(share * rng.standard_normal(4)) for name, share in VARIATION.items()}
    signal = {name: (np.array(values) * vary[name]).astype(np.float32) for name, values in SIGNAL.items()}
    vessels = _vessels(rng, brain)
    edge = rng.uniform(0, 1) * np.exp(
        -brain.depth / np.float32(rng.uniform(*EDGE_THICKNESS))
    )  # (n,), share of each voxel
    images = np.empty((len(MODALITIES), len(brain.csf)), np.int16)
    for channel, modality in enumerate(MODALITIES):
        csf, grey, white = (signal[name][channel] for name in ("csf", "grey", "white"))
        image = csf * brain.csf + grey * brain.grey + white * brain.white
        image[tumour.voxels] = _with_tumour(image[tumour.voxels], signal, tumour, channel)
        if modality == "t1ce":
            image += vessels
        image += edge * (np.float32(EDGE[channel] * rng.uniform(0.7, 1.5)) - image)
        image *= np.exp(rng.uniform(0.03, 0.12) * smooth_noise(rng, brain.axes, 50.0)[brain.mask])  # bias field
        image = _seen_by(scanner, channel, brain, image)
        # Rician noise is Gaussian to a good approximation above a signal-to-noise ratio of 3 (Gudbjartsson 1995).
        noise = np.float32(scanner.noise * rng.uniform(*NOISE[channel]))
        image += noise * grain.standard_normal(len(image), dtype=np.float32)
        unit = np.exp(rng.uniform(np.log(150), np.log(6000)))  # of white matter: arbitrary, as in real scanners
        images[channel] = np.clip(image * np.float32(unit), 1, np.iinfo(np.int16).max)
    return images


def _seen_by(scanner: Scanner, channel: int, brain: Brain, image: Voxels) -> Voxels:
    """A modality (n,) with the scanner's contrast and sharpness; the first site's is left as it is, bit for bit."""
    if scanner.contrast[channel] != 1:
        image = np.maximum(image, 0) ** np.float32(scanner.contrast[channel])
    if scanner.blur:
        volume = np.zeros(brain.mask.shape, np.float32)
        volume[brain.mask] = image
        image = ndimage.gaussian_filter(volume, scanner.blur / brain.spacing)[brain.mask]
    return image


def _with_tumour(local: Voxels, signal: dict[str, Voxels], tumour: Tumour, channel: int) -> Voxels:
    """Signal of the voxels near the tumour, the tumour put over the healthy tissue: float32 (m,)."""
    oedema, core, necrosis = (signal[name][channel] for name in ("oedema", "core", "necrosis"))
    factor = np.exp(TEXTURE[channel] * tumour.texture)
    if MODALITIES[channel] == "flair":
        core = core * (1 - (1 - MISMATCH) * tumour.mismatch)
    local = local + tumour.oedema * (oedema - local)
    local += tumour.core * (core * factor - local)
    local += tumour.necrosis * (necrosis * factor**0.6 - local)  # fluid is more even than solid tumour
    if MODALITIES[channel] == "t1ce":
        local += tumour.uptake
    return local


def _vessels(rng: np.random.Generator, brain: Brain) -> Voxels:
    """Uptake of thin tubes in CSF, where two random fields are both near 0: float32 (n,)."""
    one, two = (smooth_noise(rng, brain.axes, 7.0)[brain.mask] for _ in range(2))
    return np.asarray(VESSEL * np.exp(-(one**2 + two**2) / 0.02) * np.clip(3 * brain.csf, 0, 1))
