"""Every kind of fault and oddity at the door: graded with the right scan, or refused for the right reason."""

import errno
import os
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.toolkit.data.faults import CASES, MODALITIES, Case, drafted
from tests.toolkit.data.faults.build import Change
from toolkit.config import Grid
from toolkit.data.patients import find_patients, match_modalities, printable
from toolkit.data.scan import Scan, read_scan
from toolkit.errors import CohortError, PatientRefused

GRID = Grid(spacing=1.5, shape=(16, 16, 16))
LEAST = {"gzip": 20, "header": 38, "geometry": 18, "voxels": 16, "names": 28, "files": 12}  # twice what issues tell of
ALL = [pytest.param(case, id=f"{category}-{case.name}") for category, cases in CASES.items() for case in cases]


def read_only_patient(root: Path) -> Scan:
    (patient,) = find_patients([root])
    return read_scan(patient, GRID)


@pytest.fixture(scope="module")
def scan_of(tmp_path_factory):
    """The scan of a sound patient with some changes, read once."""

    @cache
    def read(changes: tuple[Change, ...]) -> Scan:
        root = tmp_path_factory.mktemp("like")
        drafted(changes).write(root)
        return read_only_patient(root)

    return read


def check_sentence(reason: str, folder: Path) -> None:
    """One line of UTF-8 that names a file, a modality or the folder."""
    assert reason.isprintable()
    reason.encode()
    assert not reason.endswith(".")
    names = [*MODALITIES, folder.name]
    assert any(name.lower() in reason.lower() for name in names)


@pytest.mark.parametrize("case", ALL)
def test_case(case: Case, tmp_path, scan_of):
    folder = case.write(tmp_path)
    (patient,) = find_patients([tmp_path])
    assert patient.id.encode()
    assert patient.id == printable(folder.name)
    if case.reason:
        with pytest.raises(PatientRefused) as refusal:
            read_scan(patient, GRID)
        reason = str(refusal.value)
        assert re.search(case.reason, reason), reason
        check_sentence(reason, folder)
        return
    scan = read_scan(patient, GRID)
    assert np.isfinite(scan.data).all()
    assert all(note.isprintable() for note in scan.notes)
    assert not case.note or any(re.search(case.note, note) for note in scan.notes), scan.notes
    if case.like is not None:
        expected = scan_of(case.like)
        np.testing.assert_allclose(scan.data, expected.data, atol=1e-5)
        if not case.moved:
            np.testing.assert_allclose(scan.affine, expected.affine, atol=1e-3)


def test_there_are_many_kinds():
    for category, cases in CASES.items():
        names = [case.name for case in cases]
        assert len(set(names)) == len(names)
        assert len(names) >= LEAST[category]


def test_one_call_finds_all_of_a_category(tmp_path):
    for case in CASES["voxels"][:20]:
        case.write(tmp_path)
    assert {patient.id for patient in find_patients([tmp_path])} == {case.name for case in CASES["voxels"][:20]}


def test_folders_of_one_name_get_their_paths_as_ids(tmp_path):
    for above in ("HGG", "LGG/a", "LGG/b"):
        drafted(()).write(tmp_path / above)
    drafted((), "other").write(tmp_path)
    assert [p.id for p in find_patients([tmp_path])] == ["HGG/patient", "LGG/a/patient", "LGG/b/patient", "other"]


@pytest.mark.parametrize(
    ("case", "seg"),
    [
        ("brats_2018", "Brats18_TCIA09_451_1_seg.nii.gz"),
        ("brats_2020", "W39_1998.09.19_Segm.nii"),
        ("ucsf_pdgm", "UCSF-PDGM-0004_tumor_segmentation.nii.gz"),
        ("egd", "MASK.nii.gz"),
        ("brats_2017", None),
    ],
)
def test_the_tumour_mask_is_found(tmp_path, case, seg):
    folder = next(known for known in CASES["names"] if known.name == case).write(tmp_path)
    assert match_modalities(folder).seg == (folder / seg if seg else None)


def test_an_empty_folder_is_no_patient(tmp_path):
    drafted(()).write(tmp_path)
    (tmp_path / "empty").mkdir()
    assert [patient.id for patient in find_patients([tmp_path])] == ["patient"]
    with pytest.raises(CohortError, match="no patient"):
        find_patients([tmp_path / "empty"])


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "a\udcff", "loop", "file"])
def test_a_path_that_is_no_folder(tmp_path, path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(CohortError) as error:
        find_patients([tmp_path / path])
    assert str(error.value).isprintable()


def test_a_patient_named_twice_is_read_once(tmp_path):
    folder = drafted(()).write(tmp_path)
    (tmp_path / "link").symlink_to("patient")
    assert len(find_patients([folder, tmp_path / "patient" / "..", folder])) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), "vanished"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale"),
        (PermissionError(errno.EACCES, "Permission denied"), "denied"),
        (OSError("no number"), "no number"),
    ],
)
def test_a_file_that_fails_while_it_is_read(tmp_path, monkeypatch, error, reason):
    drafted(()).write(tmp_path)
    (patient,) = find_patients([tmp_path])
    read_bytes = Path.read_bytes

    def failing(path: Path) -> bytes:
        if "t1ce" in path.name:
            raise error
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(PatientRefused, match=f"patient_t1ce.nii.gz .*{reason}"):
        read_scan(patient, GRID)


def test_a_file_that_grows_or_shrinks_while_it_is_read(tmp_path, monkeypatch):
    drafted(()).write(tmp_path)
    (patient,) = find_patients([tmp_path])
    read_bytes = Path.read_bytes
    for part, reason in [(slice(0, 2000), "truncated"), (slice(0, 0), "empty")]:
        monkeypatch.setattr(Path, "read_bytes", lambda path, part=part: read_bytes(path)[part])
        with pytest.raises(PatientRefused, match=reason):
            read_scan(patient, GRID)


def test_a_folder_that_vanishes_after_it_was_found(tmp_path):
    folder = drafted(()).write(tmp_path)
    (patient,) = find_patients([tmp_path])
    shutil.rmtree(folder)
    with pytest.raises(PatientRefused, match="folder patient vanished"):
        read_scan(patient, GRID)
    folder.touch()
    with pytest.raises(PatientRefused, match="folder patient cannot be opened"):
        read_scan(patient, GRID)


@pytest.mark.parametrize(("what", "mode"), [("patient_t2.nii.gz", 0), (".", 0), (".", 0o444), ("..", 0o444)])
def test_no_permission(tmp_path, what, mode):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder = drafted(()).write(tmp_path / "above")
    (folder / what).chmod(mode)
    try:
        (patient,) = find_patients([tmp_path])
        with pytest.raises(PatientRefused, match="permission denied"):
            read_scan(patient, GRID)
    finally:
        (tmp_path / "above").chmod(0o700)
        folder.chmod(0o700)


def test_the_same_bytes_twice_and_after_a_bad_patient(tmp_path):
    """Memory that is used again carries nothing from one patient to the next."""
    drafted(()).write(tmp_path / "good")
    bad = next(case for case in CASES["gzip"] if case.name == "checksum_wrong").write(tmp_path / "bad")
    first = read_only_patient(tmp_path / "good")
    with pytest.raises(PatientRefused):
        read_only_patient(bad.parent)
    assert read_only_patient(tmp_path / "good").data.tobytes() == first.data.tobytes()
