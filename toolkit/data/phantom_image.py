"""What a scanner makes of a phantom: four contrasts, vessels, bias field, noise, arbitrary units."""

from __future__ import annotations

import numpy as np

from toolkit.data.patients import MODALITIES
from toolkit.data.phantom_brain import Array, Brain, smooth_noise
from toolkit.data.phantom_tumour import Tumour

# Signal relative to white matter, in the order of MODALITIES; rounded from six real BraTS patients.
SIGNAL = {
    "csf": (0.35, 0.42, 0.42, 3.20),
    "grey": (1.15, 0.80, 0.84, 1.35),
    "white": (1.00, 1.00, 1.00, 1.00),
    "oedema": (1.75, 0.86, 0.86, 1.95),
    "core": (1.70, 0.74, 0.76, 2.50),
    "necrosis": (1.45, 0.64, 0.62, 2.90),
}
VARIATION = 0.05  # of each signal between patients, as a share
MISMATCH = 0.6  # FLAIR of the inner core where T2 and FLAIR disagree, as a share of the core's
VESSEL = 1.5  # uptake of vessels, in units of white matter's T1ce


def draw_images(rng: np.random.Generator, brain: Brain, tumour: Tumour) -> Array:
    """The four modalities of one patient. Nothing here depends on the grade, except through the tumour.

    Args:
        rng: source of contrasts, units, bias fields, noise.
        brain: the anatomy.
        tumour: what grew in it.

    Returns:
        int16 (4, X, Y, Z) over the brain's maps, in the order of MODALITIES, at least 1 in the brain, 0 outside.
    """
    grain = rng.spawn(1)[0]  # voxel noise has a stream of its own: what is drawn below does not depend on the grid
    signal = {
        name: np.array(values) * np.exp(VARIATION * rng.standard_normal(4)) if name != "white" else np.array(values)
        for name, values in SIGNAL.items()
    }
    vessels = _vessels(rng, brain)
    images = np.zeros((len(MODALITIES), *brain.mask.shape), np.int16)
    for channel, modality in enumerate(MODALITIES):
        image = _contrast({name: float(values[channel]) for name, values in signal.items()}, brain, tumour, modality)
        if modality == "t1ce":
            image[tumour.box] += tumour.uptake
            image += VESSEL * vessels
        bias = np.exp(rng.uniform(0.03, 0.12) * smooth_noise(rng, brain.axes, 50.0))
        unit = np.exp(rng.uniform(np.log(200), np.log(2500)))  # of white matter, arbitrary as in real scanners
        # Rician noise is Gaussian to a good approximation above a signal-to-noise ratio of 3 (Gudbjartsson 1995).
        noise = rng.uniform(0.02, 0.04) * grain.standard_normal(image.shape, dtype=np.float32)
        image = (image * bias + noise) * np.float32(unit)
        images[channel] = np.clip(image, 1, np.iinfo(np.int16).max).astype(np.int16) * brain.mask
    return images


def _contrast(signal: dict[str, float], brain: Brain, tumour: Tumour, modality: str) -> Array:
    """Signal of every voxel before the scanner's faults, white matter at 1: float32 (X, Y, Z)."""
    image = signal["csf"] * brain.csf + signal["grey"] * brain.grey + signal["white"] * brain.white
    local = image[tumour.box]
    local += tumour.oedema * (signal["oedema"] - local)
    core = signal["core"] * tumour.texture
    if modality == "flair":
        core *= 1 - tumour.mismatch * (1 - MISMATCH)
    local += tumour.core * (core - local)
    local += tumour.necrosis * (signal["necrosis"] - local)
    return np.asarray(image, dtype=np.float32)


def _vessels(rng: np.random.Generator, brain: Brain) -> Array:
    """Thin tubes in CSF, where two random fields are both near 0: float32 (X, Y, Z) in 0..1."""
    one, two = smooth_noise(rng, brain.axes, 7.0), smooth_noise(rng, brain.axes, 7.0)
    return np.exp(-(one**2 + two**2) / 0.02) * np.clip(3 * brain.csf, 0, 1)
