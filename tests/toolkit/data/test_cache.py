import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from toolkit.config import Grid
from toolkit.data import cache
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
    return cached_scans([patient], grid, folder, lambda _: None)[0].read()


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


def test_no_file_stays_open_for_a_patient(tmp_path, patient):
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    cached_scans([patient], GRID, tmp_path / "cache", lambda _: None)
    before = opened()
    scans = cached_scans([patient] * 30, GRID, tmp_path / "cache", lambda _: None)
    assert len(scans) == 30
    assert opened() == before


def test_a_cohort_that_cannot_fit_is_refused_before_anything_is_read(tmp_path, patient, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=4 * 16**3 * 4 * 2)  # two scans
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    seen = []
    with pytest.raises(CohortError, match=r"needs 0\.0 GB for 3 patients on a grid of 16 x 16 x 16, and the disk has"):
        cached_scans([patient] * 3, GRID, tmp_path / "cache", seen.append)
    assert not seen
    assert len(cached_scans([patient] * 2, GRID, tmp_path / "cache", seen.append)) == 2


def test_files_that_change_while_they_are_read_are_refused(tmp_path, patient, monkeypatch):
    def read_and_change(*args):
        scan = read_scan(*args)
        file = patient.folder / "p1_t2.nii.gz"
        nib.save(nib.Nifti1Image(nib.load(file).get_fdata()[::-1].astype(np.int16), np.eye(4)), file)
        return scan

    monkeypatch.setattr(cache, "read_scan", read_and_change)
    with pytest.raises(CohortError, match="its files changed while they were read"):
        get(patient, GRID, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_what_a_killed_training_left_is_cleaned(tmp_path, patient):
    get(patient, GRID, tmp_path / "cache")
    (tmp_path / "cache" / ".abc.npy.tmp").write_bytes(b"half a scan")
    get(patient, GRID, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]
