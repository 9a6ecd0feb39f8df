"""A phantom glioma: from a latent aggressiveness to traits, from traits to a shape with core, ring, necrosis, oedema."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import expit

from toolkit.data.phantom_brain import Array, Axes, Box, Brain, crop, draw_site, linear, smooth_noise

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4  # BraTS labels; 1 is also the core that does not enhance
TRAIT_NOISE = 0.4  # of each trait about the latent, whose own standard deviation within a grade is 1
VISIBLE = 0.3  # uptake, as a share of white matter's T1ce, from which a rater would call a voxel enhancing


@dataclass(frozen=True)
class Traits:
    """What a tumour is like; only these depend on the latent."""

    uptake: float  # contrast uptake of the ring, in units of white matter's T1ce
    necrosis: float  # 0..1, depth of the necrotic core as a share of the radius
    oedema: float  # mm beyond the core
    heterogeneity: float  # standard deviation of the texture, share of the signal
    blur: float  # mm, width of the core's border
    mismatch: bool  # T2-FLAIR mismatch: the inner core dark on FLAIR


@dataclass(frozen=True)
class Tumour:
    """Shares of each tissue, float32 (X, Y, Z) in 0..1, on a part of the brain's maps."""

    box: Box  # within the brain's maps
    axes: Axes  # mm
    core: Array
    mismatch: Array  # core more than 3 mm deep, where T2 and FLAIR disagree; all 0 in most tumours
    necrosis: Array
    oedema: Array
    uptake: Array  # in units of white matter's T1ce
    texture: Array  # factor about 1
    labels: Array  # uint8, BraTS labels


def draw_traits(rng: np.random.Generator, latent: float) -> Traits:
    """Traits that rise or fall with the latent, each with noise of its own.

    Each trait follows expit(1.7 (latent + 0.4 e)), e standard normal: close to the normal distribution function, so
    that a latent of -2 is a textbook LGG, +2 a textbook HGG, and 0 is in between. Nothing here knows the grade.

    Args:
        rng: source of the noise.
        latent: aggressiveness, about -5..5.

    Returns:
        The traits.
    """
    levels = expit(1.7 * (latent + TRAIT_NOISE * rng.standard_normal(6)))
    return Traits(
        uptake=1.5 * levels[0],
        necrosis=0.8 * levels[1],
        oedema=3 + 17 * levels[2],
        heterogeneity=0.03 + 0.22 * levels[3],
        blur=0.6 + 1.2 * levels[4],
        mismatch=bool(rng.random() < 0.4 * (1 - levels[5])),
    )


def grow_tumour(rng: np.random.Generator, brain: Brain, traits: Traits) -> Tumour:
    """A tumour of these traits at a random place, of a size (radius 12-32 mm) that tells nothing of the grade.

    Args:
        rng: source of place, size, shape and texture.
        brain: where it grows; CSF holds it up, oedema follows white matter.
        traits: what it is like.

    Returns:
        The tumour on a box about it.
    """
    radius = float(np.clip(20 * np.exp(0.25 * rng.standard_normal()), 12, 32))
    site = draw_site(rng, brain)
    reach = 1.6 * radius + 1.5 * traits.oedema
    box = crop(brain.axes, site - reach, site + reach)
    axes: Axes = (brain.axes[0][box[0]], brain.axes[1][box[1]], brain.axes[2][box[2]])
    depth = _depth(rng, axes, site, radius)
    depth -= 6 * brain.csf[box]  # mm; ventricles and sulci bound a tumour
    mask, white, grey = brain.mask[box], brain.white[box], brain.grey[box]
    core = expit(depth / traits.blur) * mask
    ring = radius * (1 - traits.necrosis) * (1 + 0.15 * smooth_noise(rng, axes, 6.0)) + smooth_noise(rng, axes, 3.0)
    necrosis = expit((depth - ring) / 0.7) * core * min(1.0, 3 * traits.necrosis)
    fingers = traits.oedema * (0.55 + 0.45 * smooth_noise(rng, axes, 9.0))
    oedema = expit((depth + fingers) / 1.5) * np.clip(1.2 * white + 0.3 * grey, 0, 1) * mask
    coarse, fine = smooth_noise(rng, axes, 4.0), smooth_noise(rng, axes, 2.0)
    patches = np.clip(1 + 2 * traits.heterogeneity * coarse, 0, 2)
    uptake = traits.uptake * patches * np.clip(core - necrosis, 0, 1)
    texture = np.exp(traits.heterogeneity * (0.5 * coarse + 0.7 * fine))
    mismatch = traits.mismatch * expit((depth - 3) / 0.8) * mask
    labels = np.where(oedema > 0.5, OEDEMA, 0)
    labels[core > 0.5] = NECROSIS
    labels[(core > 0.5) & (uptake > VISIBLE)] = ENHANCING
    return Tumour(box, axes, core, mismatch, necrosis, oedema, uptake, texture, labels.astype(np.uint8))


def _depth(rng: np.random.Generator, axes: Axes, site: Array, radius: float) -> Array:
    """Depth (mm, negative outside) below the surface of an ellipsoid with bumps: float32 (X, Y, Z)."""
    stretch = np.exp(rng.uniform(-0.25, 0.25, 3))
    turn = Rotation.from_quat(rng.standard_normal(4)).as_matrix()  # uniform over all rotations
    stretch /= np.cbrt(stretch.prod())  # the volume stays that of the ball
    distance = np.sqrt(np.sum(linear(turn / stretch[:, None], axes, site) ** 2, axis=0))
    lobes = 0.2 * smooth_noise(rng, axes, 0.5 * radius) + 0.06 * smooth_noise(rng, axes, 5.0)
    return np.asarray(radius * (1 + lobes) - distance)
