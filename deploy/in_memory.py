"""Patients from Python: folders, and images in memory as files, so that the same checks apply."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from toolkit.data.patients import MODALITIES, Patient, find_patients
from toolkit.errors import CohortError, PatientRefused
from toolkit.files import first_line

Affine: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Image(Protocol):
    """A nibabel image in memory."""

    @property
    def affine(self) -> Affine | None:
        """(4, 4), voxel index to mm, RAS+."""

    def to_filename(self, filename: str) -> None:
        """Write it."""


Images: TypeAlias = Mapping[str, Image]
Source: TypeAlias = str | Path | Images
NAME = "in-memory"
_NO_NIFTI = (HeaderDataError, OSError, OverflowError, TypeError, ValueError)


@contextmanager
def patients_of(source: Source) -> Iterator[tuple[Patient, ...]]:
    """The patients of a source; images in memory are files while the block lasts, so that the same checks apply.

    Raises:
        CohortError: no patient is there.
        PatientRefused: the images are not those of the four modalities, or one cannot be a NIfTI file.
    """
    if not isinstance(source, Mapping):
        yield find_patients([Path(source)])
        return
    given = [name for name, image in source.items() if image is not None]
    if sorted(given) != sorted(MODALITIES):
        raise PatientRefused(f"images of {', '.join(given) or 'nothing'} were given; name {', '.join(MODALITIES)}.")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / NAME
        home.mkdir()
        for name, image in source.items():
            try:
                image.to_filename(str(home / f"{NAME}_{name}.nii"))
            except ImageFileError:
                kind = type(image).__name__
                raise PatientRefused(f"{name} is a {kind}; make it a NIfTI image by Nifti1Image.from_image") from None
            except _NO_NIFTI as error:
                raise PatientRefused(f"{name} cannot be a NIfTI file: {first_line(error)}") from error
        yield find_patients([home])


def images(voxels: Mapping[str, np.ndarray[Any, Any]], affine: Affine) -> Images:
    """Four arrays as images for `GradingModel.predict`.

    Args:
        voxels: (X, Y, Z) by modality.
        affine: (4, 4), voxel index to mm, RAS+, the same for all.
    """
    return {name: _Voxels(array, affine) for name, array in voxels.items()}


@dataclass(frozen=True)
class _Voxels:
    """An array as an image; whether it can be one shows when it is graded, so that it is one patient's fault."""

    voxels: np.ndarray[Any, Any]
    affine: Affine

    def to_filename(self, filename: str) -> None:
        """Write it; half precision as single, which holds the same numbers."""
        array = np.asanyarray(self.voxels)
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        if self.affine is not None and not np.isfinite(np.asarray(self.affine, np.float64)).all():
            raise ValueError("its affine holds a number that is not finite")
        nib.Nifti1Image(array, self.affine, dtype=array.dtype).to_filename(filename)


def listed(source: object) -> list[Source]:
    """The patients asked for.

    Args:
        source: a folder, images by modality, or several of these.

    Raises:
        CohortError: one is neither a folder nor images, whatever these hold.
    """
    several: list[Any] = [source]
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | Path | Mapping):
        several = list(source)
    for patient in several:
        if not isinstance(patient, str | Path | Mapping):
            kind = type(patient).__name__
            raise CohortError(f"a {kind} is no patient; give a folder, four images by modality, or a list of these.")
        for name, image in patient.items() if isinstance(patient, Mapping) else ():
            if not isinstance(name, str):
                raise CohortError(f"{name!r} is no modality; name {', '.join(MODALITIES)}.")
            if image is not None and not hasattr(image, "to_filename"):
                kind = type(image).__name__
                raise CohortError(f"{name} is a {kind}, no image; give nibabel images, or arrays by deploy.images().")
    return several
