"""One patient, one thread: this toolkit against MONAI's transforms and against gzip's own limit.

    python -m benchmarks.read PATIENT_FOLDER

The patient's files are written again as int16, float32 and float64. `libdeflate` decompresses the four files and does
nothing else: no reader can be faster. `MONAI` is the chain of the field: LoadImaged, Orientationd, ConcatItemsd,
CropForegroundd, Spacingd, ResizeWithPadOrCropd, NormalizeIntensityd.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
import torch
from monai import transforms
from threadpoolctl import threadpool_limits

from benchmarks.common import arguments, best_of, report
from toolkit.config import Grid
from toolkit.data.memory import Workspace
from toolkit.data.patients import MODALITIES, Patient, match_modalities
from toolkit.data.reading.door import Reading, open_patient
from toolkit.data.scan import read_scan

GRID = Grid()


def written_as(dtype: Any, source: Path, out: Path) -> Patient:
    """A copy of a patient whose voxels have this type."""
    folder = out / np.dtype(dtype).name
    folder.mkdir()
    for name, file in match_modalities(source).modalities.items():
        image: Any = nib.load(file)
        copy = nib.Nifti1Image(np.asarray(image.dataobj).astype(dtype), image.affine)
        nib.save(copy, folder / f"{folder.name}_{name}.nii.gz")
    return Patient(folder.name, folder)


def monai_chain(grid: Grid) -> transforms.Compose:
    """The usual preprocessing, onto the same grid."""
    keys = list(MODALITIES)
    return transforms.Compose(
        [
            transforms.LoadImaged(keys, ensure_channel_first=True),
            transforms.Orientationd(keys, axcodes="RAS", labels=None),
            transforms.ConcatItemsd(keys, name="image", dim=0),
            transforms.CropForegroundd(["image"], source_key="image", allow_smaller=True),
            transforms.Spacingd(["image"], pixdim=(grid.spacing,) * 3, mode="bilinear"),
            transforms.ResizeWithPadOrCropd(["image"], grid.shape),
            transforms.NormalizeIntensityd(["image"], nonzero=True, channel_wise=True),
        ]
    )


def measure(patient: Patient, times: int) -> tuple[float, float, float, float]:
    """Seconds of libdeflate, the door, this toolkit, MONAI."""
    files = match_modalities(patient.folder).modalities
    raw = [file.read_bytes() for file in files.values()]
    buffers = [np.empty(int.from_bytes(content[-4:], "little"), np.uint8) for content in raw]

    def decompress() -> None:
        for content, buffer in zip(raw, buffers, strict=True):
            imagecodecs.gzip_decode(content, out=buffer.data)

    workspace, chain = Workspace(), monai_chain(GRID)
    paths = {name: str(file) for name, file in files.items()}
    return (
        best_of(decompress, times),
        best_of(lambda: open_patient(patient, Reading(workspace)), times),
        best_of(lambda: read_scan(patient, GRID, Reading(workspace)), times),
        best_of(lambda: chain(paths), max(2, times // 5)),
    )


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Reading and preprocessing of one patient, one thread.",
        ("patient", {"type": Path, "help": "folder with four modalities"}),
        ("--times", {"type": int, "default": 15}),
    )
    torch.set_num_threads(1)
    rows = []
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for dtype in (np.int16, np.float32, np.float64):
            limit, door, ours, monai = measure(written_as(dtype, given.patient, Path(folder)), given.times)
            rows.append(
                (np.dtype(dtype).name, 1000 * limit, 1000 * door, 1000 * ours, 1000 * monai, ours / limit, monai / ours)
            )
    columns = ("voxels", "libdeflate ms", "door ms", "grade ms", "MONAI ms", "grade / libdeflate", "MONAI / grade")
    report("One patient, one thread", columns, rows, given.out)


if __name__ == "__main__":
    main()
