"""A phantom glioma: from a latent aggressiveness to traits, from traits to core, ring, necrosis and oedema."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import expit

from toolkit.arrays import Voxels
from toolkit.data.phantom.brain import Axes, Brain, atlas, crop, draw_site, linear, smooth_noise

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4  # BraTS labels; 1 is also the core that does not enhance
TRAIT_NOISE = 0.4  # of each trait about the latent, whose own standard deviation within a grade is 1
VISIBLE = 0.3  # uptake, as a share of white matter's T1ce, from which a rater would call a voxel enhancing


@dataclass(frozen=True)
class Traits:
    """What a tumour is like; only these depend on the latent."""

    uptake: float  # contrast uptake of the ring, in units of white matter's T1ce
    necrosis: float  # 0..1, depth of the necrotic core as a share of the radius
    oedema: float  # mm beyond the core
    heterogeneity: float  # standard deviation of the texture
    blur: float  # mm, scale of the logistic fall at the core's border
    mismatch: bool  # T2-FLAIR mismatch: the inner core dark on FLAIR


@dataclass(frozen=True)
class Tumour:
    """A tumour: vectors over the m brain voxels near it; shares are float32, 0..1."""

    voxels: Voxels  # (m,) positions among the brain's voxels
    core: Voxels  # (m,)
    mismatch: Voxels  # core more than 3 mm deep, where T2 and FLAIR disagree; all 0 in most tumours
    necrosis: Voxels
    oedema: Voxels
    uptake: Voxels  # in units of white matter's T1ce
    texture: Voxels  # logarithm of a factor, about 0
    labels: Voxels  # int16, BraTS labels


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
    levels = expit(1.7 * (latent + TRAIT_NOISE * rng.standard_normal(6))).tolist()
    return Traits(
        uptake=1.5 * levels[0],
        necrosis=0.8 * levels[1],
        oedema=3 + 17 * levels[2],
        heterogeneity=0.03 + 0.17 * levels[3],
        blur=0.4 + 0.8 * levels[4],
        mismatch=rng.random() < 0.3 * (1 - levels[5]),
    )


def grow_tumour(rng: np.random.Generator, brain: Brain, traits: Traits) -> Tumour:
    """A tumour of these traits at a random place, of a size (radius 12-32 mm) that tells nothing of the grade.

    Args:
        rng: source of place, size, shape and texture.
        brain: where it grows; CSF holds it up, oedema follows white matter.
        traits: what it is like.

    Returns:
        The tumour, on the brain's voxels near it.
    """
    radius = float(np.clip(20 * np.exp(0.25 * rng.standard_normal()), 12, 32))
    site = draw_site(rng, brain)
    reach = 2 * radius + 1.5 * traits.oedema  # mm; beyond, shares are 0
    box = crop(brain.axes, site - reach, site + reach)
    axes: Axes = (brain.axes[0][box[0]], brain.axes[1][box[1]], brain.axes[2][box[2]])
    near = brain.mask[box]
    rank = np.cumsum(brain.mask, dtype=np.int32).reshape(brain.mask.shape) - 1
    voxels = rank[box][near]  # (m,)

    def noise(length: float) -> Voxels:
        return np.asarray(smooth_noise(rng, axes, length)[near])  # (X, Y, Z) -> (m,)

    lobes = 0.2 * noise(0.5 * radius) + 0.06 * noise(5.0)
    depth = radius * (1 + lobes) - _distance(rng, axes, site)[near]  # mm below the tumour's surface
    depth -= 6 * brain.csf[voxels]  # mm; ventricles and sulci hold it up
    depth = np.minimum(depth, ndimage.map_coordinates(atlas().depth, brain.points[:, voxels], order=1) - 1)
    core = expit(depth / traits.blur)
    coarse, fine = noise(4.0), noise(1.8)
    ring = radius * (1 - traits.necrosis) * (1 + 0.15 * noise(6.0)) + 1.2 * noise(3.0) + 0.5 * fine  # mm, thickness
    necrosis = expit((depth - ring) / 0.5) * core * min(1.0, 3 * traits.necrosis)
    fingers = traits.oedema * (0.6 + 0.3 * noise(9.0))
    spread = np.clip(1.2 * brain.white[voxels] + 0.3 * brain.grey[voxels], 0, 1)
    oedema = expit((depth + fingers) / 1.5) * spread
    patches = np.clip(1 + traits.heterogeneity * (2 * coarse + fine), 0, 2)
    uptake = traits.uptake * patches * np.clip(expit(depth / 0.4) - necrosis, 0, 1)  # sharp: vessels leak or do not
    texture = traits.heterogeneity * (0.6 * coarse + 0.8 * fine)
    mismatch = traits.mismatch * expit((depth - 3) / 0.8)
    labels = np.where(oedema > 0.5, OEDEMA, 0).astype(np.int16)
    labels[core > 0.5] = NECROSIS
    labels[(core > 0.5) & (uptake > VISIBLE)] = ENHANCING
    return Tumour(voxels, core, mismatch, necrosis, oedema, uptake, texture, labels)


def _distance(rng: np.random.Generator, axes: Axes, site: Voxels) -> Voxels:
    """Distance from the site, measured by a random ellipsoid of the volume of a ball: mm, float32 (X, Y, Z)."""
    stretch = np.exp(rng.uniform(-0.25, 0.25, 3))
    stretch /= np.cbrt(stretch.prod())
    turn = Rotation.from_quat(rng.standard_normal(4)).as_matrix()  # uniform over all rotations
    return np.asarray(np.linalg.norm(linear(turn / stretch[:, None], axes, site), axis=0))
