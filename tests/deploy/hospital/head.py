"""Heads for tests of registration: a phantom's brain in a skull and a scalp, scanned while the patient moves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deploy.hospital.space.pose import AFFINE, TURN
from deploy.hospital.volume import Volume
from toolkit.data.patients import MODALITIES
from toolkit.data.phantom.brain import Brain, draw_brain
from toolkit.data.phantom.cohort import PhantomSettings, _streams, draw_patient, plan_cohort

FLIP = np.diag([-1.0, -1.0, 1.0])
PAD = ((0, 0), (0, 0), (20, 40))  # voxels: room for the scalp above the brain, and for what is below it
SCALP = {"flair": 1.5, "t1": 1.7, "t1ce": 1.8, "t2": 1.1}  # in units of the brain's median; fat is bright
FLUID = {"flair": 0.25, "t1": 0.3, "t1ce": 0.3, "t2": 2.2}


@dataclass(frozen=True)
class Head:
    """One head at 1 mm, in the phantom's space.

    Attributes:
        images: modality -> float32 (240, 240, 215), with skull and scalp.
        mask: bool, of the brain.
        affine: (4, 4), voxel -> mm, RAS.
        upright: (3, 3), from the head's axes to those of BraTS's pose.
        grade: 0 or 1.
    """

    images: dict[str, NDArray[np.float32]]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    upright: NDArray[np.float64]
    grade: int

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """The middle (3,) of the brain, mm."""
        return self.points.mean(axis=1)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Some points (3, N) of the brain, mm."""
        index = np.array(np.nonzero(self.mask))[:, ::997]
        return self.affine[:3, :3] @ index + self.affine[:3, 3:]


@dataclass(frozen=True)
class Scan:
    """What a scanner makes of a head.

    Attributes:
        series: modality -> volume, each on its own grid.
        motion: modality -> (4, 4), from points of the head to points of the scanner's space, RAS mm.
    """

    series: dict[str, Volume]
    motion: dict[str, NDArray[np.float64]]


def draw_head(seed: int, place: int = 0, difficulty: float = 0.3, hgg_share: float = 0.5) -> Head:
    """A patient of a phantom cohort with a skull around the brain."""
    settings = PhantomSettings(patients=place + 1, seed=seed, difficulty=difficulty, hgg_share=hgg_share)
    patient = plan_cohort(settings)[place]
    drawn = draw_patient(patient, settings)
    brain = draw_brain(_streams(seed, patient.number)[1], 1.0)  # the same draw: for its rotation
    left, _, right = np.linalg.svd(FLIP @ _stretched(brain) @ FLIP)
    turn = Rotation.from_euler("x", TURN, degrees=True).as_matrix()
    mask = np.pad(drawn["t1"] > 0, PAD)
    depth = np.full(mask.shape, np.inf)  # mm outside the brain
    depth[around(mask, 16)] = ndimage.distance_transform_edt(~mask[around(mask, 16)])
    rng = np.random.default_rng([seed, place])
    texture = ndimage.gaussian_filter(rng.standard_normal(mask.shape).astype(np.float32), 3.0)
    texture /= texture.std()
    images = {}
    for name in MODALITIES:
        image = np.pad(drawn[name], PAD).astype(np.float32)
        middle = float(np.median(image[mask]))
        image[(depth > 0) & (depth <= 2)] = FLUID[name] * middle
        image[(depth > 2) & (depth <= 8)] = 0.12 * middle  # bone
        scalp = (depth > 8) & (depth <= 15)
        image[scalp] = SCALP[name] * middle * (1 + 0.15 * texture[scalp])
        images[name] = image
    affine = AFFINE.copy()
    affine[2, 3] -= PAD[2][0]
    return Head(images, mask, affine, turn @ (left @ right).T, patient.grade)


def _stretched(brain: Brain) -> NDArray[np.float64]:
    """The linear map (3, 3), atlas -> patient, that fits a brain best: a bend turns it too, by up to 1.5 degrees."""
    axes = np.meshgrid(*brain.axes, indexing="ij")
    places = np.stack([axis[brain.mask][::50] for axis in axes] + [np.ones(len(brain.depth[::50]))], axis=1)
    back = np.linalg.lstsq(places, brain.points[:, ::50].T, rcond=None)[0][:3].T
    return np.linalg.inv(back)


def around(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    """The box of a mask, with some voxels more on each side where there are any."""
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    return tuple(slice(max(0, side.start - margin), side.stop + margin) for side in box)


def scan(
    head: Head,
    seed: int | list[int],
    degrees: float = 10.0,
    shift: float = 10.0,
    slices: float | None = None,
    noise: float = 0.03,
) -> Scan:
    """Four series of a head that lies anyhow and moves in between.

    Args:
        head: from `draw_head`.
        seed: of pose, motion, slices and noise.
        degrees: largest rotation about each axis, of the pose and of each series against it.
        shift: mm, likewise.
        slices: mm, thickness; None: 1 to 6, another for each series.
        noise: in units of the brain's median.
    """
    rng = np.random.default_rng(seed)
    pose = _rigid(rng, degrees, shift, head.centre)
    series, motion = {}, {}
    for name in MODALITIES:
        motion[name] = _rigid(rng, degrees, shift, pose[:3, :3] @ head.centre + pose[:3, 3]) @ pose
        thickness = float(rng.uniform(1, 6)) if slices is None else slices
        clean = _sampled(head, name, motion[name], thickness)
        spread = noise * float(np.median(head.images[name][head.mask]))
        parts = rng.normal(0, spread, (2, *clean.voxels.shape)).astype(np.float32)
        series[name] = Volume(np.hypot(clean.voxels + parts[0], parts[1]), clean.affine)
    return Scan(series, motion)


def _rigid(rng: np.random.Generator, degrees: float, shift: float, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-degrees, degrees, 3), degrees=True).as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + rng.uniform(-shift, shift, 3)
    return matrix


def _sampled(head: Head, name: str, motion: NDArray[np.float64], thickness: float) -> Volume:
    """Axial slices around where the head was planned to be, 0.9 mm in the plane, each an average over its thickness."""
    count = int(np.ceil(190 / thickness))
    affine = np.diag([-0.9, -0.9, thickness, 1.0])
    size = np.array([256, 270, count])
    affine[:3, 3] = head.centre + np.array([0, 0, 8]) - affine[:3, :3] @ (size - 1) / 2
    fine = max(1, round(thickness))  # samples through a slice
    total = np.zeros(size, np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(head.images[name].T))  # without place: points are voxels
    into = np.linalg.inv(head.affine) @ np.linalg.inv(motion) @ affine
    for part in range(fine):
        offset = ((part + 0.5) / fine - 0.5) * thickness
        start = into[:3, 3] + into[:3, 2] * offset / thickness
        way = sitk.AffineTransform(into[:3, :3].ravel().tolist(), start.tolist())
        total += sitk.GetArrayFromImage(sitk.Resample(image, size.tolist(), way, sitk.sitkLinear)).T
    return Volume(total / fine, affine)
