"""The door: one patient's four images, opened and checked; what cannot be trusted is refused with the reason.

Nothing passes that a grade could be computed from wrongly: `scan.py` and `grade check` both come in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from toolkit.arrays import Float64, Mask, Voxels
from toolkit.data.memory import Workspace
from toolkit.data.patients import MODALITIES, Patient, match_modalities
from toolkit.data.reading.header import Affine, same_place
from toolkit.data.reading.nifti import Volume, read_nifti
from toolkit.data.reading.voxels import check_cover, check_images, survey
from toolkit.data.resample import MemoryOrder
from toolkit.errors import PatientRefused

OnBytes: TypeAlias = Callable[[str, bytes], None]

USUAL_BRAIN = (600.0, 2200.0)  # ml, adult, with room to spare; anything else is noted


@dataclass(frozen=True)
class Images:
    """A patient's four checked images, cut to the brain's bounding box; RAS axes, all in one memory order.

    They are in the workspace that they were read with: good until it is used for the next patient.

    Attributes:
        files: of the modalities.
        seg: the tumour mask, if there is one; not opened.
        voxels: modality -> (X, Y, Z), stored numbers in the file's dtype.
        background: modality -> the value outside the brain.
        slopes: modality -> factor of the header, finite and not 0.
        mask: bool (X, Y, Z), voxels of the brain.
        box: where (X, Y, Z) is in the whole volume.
        shape: of the whole volume.
        affine: (4, 4), voxel of the whole volume to mm.
        notes: oddities that were accepted, one phrase each.
        missing: the modality that the patient lacks, whose voxels are all 0; empty where none is.
    """

    files: dict[str, Path]
    seg: Path | None
    voxels: dict[str, Voxels]
    background: dict[str, Any]
    slopes: dict[str, float]
    mask: Mask
    box: tuple[slice, ...]
    shape: tuple[int, ...]
    affine: Affine
    notes: tuple[str, ...]
    missing: str = ""

    @property
    def edges(self) -> Float64:
        """Size of a voxel along each axis, mm (3,)."""
        edges: Float64 = np.linalg.norm(self.affine[:3, :3], axis=0)
        return edges

    @property
    def brain_ml(self) -> float:
        """Volume of the mask, ml."""
        return float(np.count_nonzero(self.mask) * self.edges.prod() / 1000)


class Reading(NamedTuple):
    """How a patient's files are read.

    Attributes:
        workspace: memory to work in, for one patient after the other; None takes fresh memory.
        on_bytes: called with a modality and the bytes of its file, the very ones that are then decoded.
        optional: modalities of which the patient may lack one.
    """

    workspace: Workspace | None = None
    on_bytes: OnBytes | None = None
    optional: Sequence[str] = ()


PLAINLY = Reading()


def open_patient(patient: Patient, how: Reading = PLAINLY) -> Images:
    """Read a patient's files to their last byte and check everything that can be checked without a model.

    Args:
        patient: whose files to read.
        how: see there.

    Raises:
        PatientRefused: anything about the patient that cannot be trusted, in one phrase.
    """
    workspace, on_bytes = how.workspace or Workspace(), how.on_bytes
    files = match_modalities(patient.folder, how.optional)
    volumes = {
        name: read_nifti(file, workspace.file(name), partial(on_bytes, name) if on_bytes else None)
        for name, file in files.modalities.items()
    }
    for name in volumes:
        _check_one_grid(volumes, name)
    first = next(iter(volumes.values()))
    order = MemoryOrder.of(first.voxels)
    stored = {name: order.along(volume.voxels) for name, volume in volumes.items()}
    whole: Mask = workspace.mask.array(next(iter(stored.values())).shape, np.bool_)
    surveys = survey(stored, whole, workspace.slab)
    box = _bounding_box(whole)
    mask = np.ascontiguousarray(whole[box])
    slopes = {name: volume.slope for name, volume in volumes.items()}
    notes = [*files.notes, *_gathered({name: volume.notes for name, volume in volumes.items()})]
    notes += check_cover(surveys, int(np.count_nonzero(mask)))
    check_images(surveys, slopes, mask, box)
    images = Images(
        files=files.modalities,
        seg=files.seg,
        voxels={name: order.back(seen.array[box]) for name, seen in surveys.items()},
        background={name: seen.background for name, seen in surveys.items()},
        slopes=slopes,
        mask=order.back(mask),
        box=_box_in_space(box, order, first.voxels.shape),
        shape=first.voxels.shape,
        affine=np.median([volume.affine for volume in volumes.values()], axis=0),  # jitter of one file moves nothing
        notes=tuple(notes),
    )
    images = _with_blank(images)
    return images if USUAL_BRAIN[0] <= images.brain_ml <= USUAL_BRAIN[1] else _with_size_note(images)


def _with_blank(images: Images) -> Images:
    """The images with one of zeros for a modality that the patient lacks."""
    lacking = [name for name in MODALITIES if name not in images.voxels]
    if not lacking:
        return images
    blank = np.zeros_like(images.mask, np.float32)
    order = {name: images.voxels.get(name, blank) for name in MODALITIES}
    (missing,) = lacking
    return replace(
        images,
        voxels=order,
        background=images.background | {missing: np.float32(0)},
        slopes=images.slopes | {missing: 1.0},
        missing=missing,
    )


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around what is set; the whole where nothing is."""
    face: Mask = np.any(mask, axis=0)
    profiles = (mask.reshape(len(mask), -1).any(axis=1), face.any(axis=1), face.any(axis=0))
    ends = (np.flatnonzero(profile) for profile in profiles)
    return tuple(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(None) for used in ends)


def _gathered(notes: dict[str, tuple[str, ...]]) -> list[str]:
    """The same note on several modalities becomes one."""
    names: dict[str, list[str]] = {}
    for name, lines in notes.items():
        for line in lines:
            names.setdefault(line, []).append(name)
    return [f"{', '.join(modalities)}: {line}" for line, modalities in names.items()]


def _check_one_grid(volumes: dict[str, Volume], name: str) -> None:
    """Is a modality on the grid of the first one?"""
    first_name = next(iter(volumes))
    first, volume = volumes[first_name], volumes[name]
    if volume.voxels.shape != first.voxels.shape:
        shapes = f"{first.voxels.shape} and {volume.voxels.shape}"
        raise PatientRefused(f"{first_name} and {name} are on different grids: shapes {shapes}; register them first")
    if not same_place(volume.affine, first.affine, first.voxels.shape):
        raise PatientRefused(
            f"{first_name} and {name} are on different grids: {_difference(first.affine, volume.affine)}; "
            "register them first"
        )


def _difference(first: Affine, second: Affine) -> str:
    spacings = [np.linalg.norm(affine[:3, :3], axis=0).round(3).tolist() for affine in (first, second)]
    if spacings[0] != spacings[1]:
        return f"voxel spacings {spacings[0]} and {spacings[1]} mm"
    if not np.allclose(first[:3, :3], second[:3, :3], atol=1e-3):
        return "their affines point in different directions (orientation)"
    return f"their affine origins {first[:3, 3].round(2).tolist()} and {second[:3, 3].round(2).tolist()} mm differ"


def _box_in_space(box: tuple[slice, ...], order: MemoryOrder, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The box along the axes of the volume instead of those of memory."""
    found = [slice(0)] * 3
    for axis, part in zip(order.axes, box, strict=True):
        flipped = order.flips[axis].step == -1
        found[axis] = slice(shape[axis] - part.stop, shape[axis] - part.start) if flipped else part
    return tuple(found)


def _with_size_note(images: Images) -> Images:
    note = f"the brain measures {images.brain_ml:.3g} ml, unusual for an adult; is the skull removed?"
    return replace(images, notes=(*images.notes, note))
