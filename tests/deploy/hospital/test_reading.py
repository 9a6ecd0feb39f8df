"""Files of three vendors, classic and enhanced, in eight codings, against what was written and against dcm2niix."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from deploy.hospital.study.choose import choose_series
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.study import find_studies
from deploy.hospital.study.volume_reader import read_volume
from deploy.hospital.volume import Volume
from tests.deploy.hospital.heads import head, heads
from tests.deploy.hospital.writer import LOOKS, SYNTAXES, Paper, write_study
from toolkit.data.patients import MODALITIES

REAL = Path(__file__).parents[4] / "shared" / "dicom"


def canonical(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.voxels, volume.affine))
    return np.asanyarray(image.dataobj), image.affine


def four(folder: Path) -> dict[str, Volume]:
    (study,) = find_studies(folder)
    assert not study.rejected
    chosen = choose_series(study, SeriesRules()).chosen
    assert tuple(chosen) == MODALITIES
    return {modality: read_volume(series) for modality, series in chosen.items()}


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("vendor", LOOKS)
def test_what_was_written_comes_back(tmp_path: Path, vendor: str, enhanced: bool) -> None:
    written = heads()
    found = four(write_study(tmp_path, written, vendor, paper=Paper(enhanced=enhanced)))
    for modality, volume in found.items():
        want, want_affine = canonical(written[modality])
        got, got_affine = canonical(volume)
        np.testing.assert_allclose(got_affine, want_affine, atol=1e-4)
        # Philips stores 12 bits a slice: half a step of the brightest slice is the best there is.
        np.testing.assert_allclose(got, want, atol=want.max() / 4095 / 2 * 1.01 if vendor == "philips" else 0)


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name.split(" (")[0])
def test_every_coding_holds_the_same_voxels(tmp_path: Path, syntax: str, enhanced: bool) -> None:
    written = {name: head(name, (32, 30, 20), (6, 6, 6)) for name in MODALITIES}
    found = four(write_study(tmp_path, written, paper=Paper(enhanced=enhanced, syntax=syntax)))
    for modality, volume in found.items():
        np.testing.assert_array_equal(canonical(volume)[0], canonical(written[modality])[0])


def dcm2niix(source: Path, out: Path) -> dict[int, nibabel.Nifti1Image]:
    """Series number -> its volume, as the independent converter reads it."""
    tool = shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which("dcm2niix")
    if tool is None:
        pytest.skip("dcm2niix is not installed; pip install -e '.[dev]' brings it")
    out.mkdir()
    command = [tool, "-f", "%s", "-b", "n", "-z", "n", "-p", "n", "-o", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return {int(file.stem): nibabel.load(file) for file in out.glob("*.nii")}


def agree(folder: Path, out: Path) -> int:
    """Compare every series that makes a volume; gives their number."""
    witness = dcm2niix(folder, out)
    count = 0
    for study in find_studies(folder):
        for series in study.series:
            ours, affine = canonical(read_volume(series))
            theirs = nibabel.as_closest_canonical(witness[series.number])
            np.testing.assert_allclose(theirs.affine, affine, atol=1e-3)
            data = np.asanyarray(theirs.dataobj)
            np.testing.assert_allclose(ours, data, rtol=1e-6, atol=1e-6 * np.abs(data).max())
            count += 1
    return count


@pytest.mark.parametrize(
    ("vendor", "enhanced"), [("ge", False), ("siemens", True), ("philips", False), ("philips", True)]
)
def test_dcm2niix_reads_the_same(tmp_path: Path, vendor: str, enhanced: bool) -> None:
    written = {name: head(name, (32, 30, 20), (6, 6, 6)) for name in MODALITIES}
    write_study(tmp_path / "in", written, vendor, paper=Paper(enhanced=enhanced))
    assert agree(tmp_path / "in", tmp_path / "out") == 4


@pytest.mark.parametrize("name", ["tcga_fg6692_four_series", "siemens_xa30_enhanced_t1", "ge_classic_t1"])
def test_dcm2niix_reads_real_files_the_same(tmp_path: Path, name: str) -> None:
    agree(real(name, tmp_path), tmp_path / "out")


def real(name: str, folder: Path) -> Path:
    """A packed study of real files, unpacked; skips where it is not at hand."""
    packed = REAL / f"{name}.tar.xz"
    if not packed.is_file():
        pytest.skip(f"{packed.name} is not at hand: real studies are kept outside the repository")
    shutil.unpack_archive(packed, folder, filter="data")
    return folder / name
