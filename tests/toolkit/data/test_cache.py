import nibabel as nib
import numpy as np
import pytest

from toolkit.config import Grid
from toolkit.data.cache import cached_scans
from toolkit.data.patients import MODALITIES, Patient
from toolkit.data.scan import read_scan
from toolkit.errors import CohortError

GRID = Grid(spacing=1.5, shape=(16, 16, 16))


@pytest.fixture
def patient(tmp_path):
    folder = tmp_path / "p1"
    folder.mkdir()
    for seed, name in enumerate(MODALITIES):
        image = np.zeros((24, 24, 16), np.int16)
        image[4:20, 4:20, 3:13] = np.random.default_rng(seed).normal(400, 60, (16, 16, 10))
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"p1_{name}.nii.gz")
    return Patient("p1", folder)


def get(patient, grid, folder):
    return cached_scans([patient], grid, folder, lambda _: None)[0]


def test_the_cache_holds_the_scan_byte_for_byte(tmp_path, patient):
    expected = read_scan(patient, GRID).data
    for _ in range(2):
        cached = get(patient, GRID, tmp_path / "cache")
        assert cached.dtype == np.float32
        np.testing.assert_array_equal(cached, expected)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_changed_file_or_grid_is_another_entry(tmp_path, patient):
    get(patient, GRID, tmp_path / "cache")
    get(patient, Grid(spacing=2.0, shape=(16, 16, 16)), tmp_path / "cache")
    image = nib.load(patient.folder / "p1_t2.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.int16)[::-1], np.eye(4)), patient.folder / "p1_t2.nii.gz")
    np.testing.assert_array_equal(get(patient, GRID, tmp_path / "cache"), read_scan(patient, GRID).data)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_entry_is_named(tmp_path, patient):
    get(patient, GRID, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:1000])
    with pytest.raises(CohortError, match=r"cache entry .* is damaged"):
        get(patient, GRID, tmp_path / "cache")


def test_all_refused_patients_are_named(tmp_path, patient):
    (patient.folder / "p1_t2.nii.gz").unlink()
    with pytest.raises(CohortError, match=r"1 of 1 patients cannot be used: p1 \(t2 missing"):
        get(patient, GRID, tmp_path / "cache")


def test_a_cache_that_cannot_be_written(tmp_path, patient):
    (tmp_path / "file").touch()
    with pytest.raises(CohortError, match="cannot be written"):
        get(patient, GRID, tmp_path / "file" / "cache")
