"""Where patients are: each real folder once, at any depth, through any links; BIDS; what `grade` itself wrote."""

import os
import subprocess
import time
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.data.cohort.leakage import persons
from toolkit.data.layout import EVIDENCE_MARK
from toolkit.data.patients import Cohort, find_patients, match_modalities
from toolkit.data.walk import unique_ids
from toolkit.errors import CohortError


def fill(root, *folders, image="x_t1.nii.gz"):
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / image).touch()


def ids(*paths):
    return [patient.id for patient in find_patients(paths)]


def test_a_real_folder_is_found_before_its_links(tmp_path):
    fill(tmp_path, "b/real")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b" / "alias").symlink_to("real")
    fill(tmp_path, ".kept/p")
    (tmp_path / "linked").symlink_to(".kept/p")
    (tmp_path / "linked again").symlink_to("linked")
    assert ids(tmp_path) == ["real", "linked"]
    assert ids(tmp_path / "a", tmp_path / "b") == ["real"]
    assert find_patients([tmp_path / "a"])[0].folder == tmp_path / "a" / "real"


def test_a_dense_graph_of_links(tmp_path):
    for number in range(40):
        fill(tmp_path, f"d{number:02d}")
    for number in range(40):
        for other in range(40):
            (tmp_path / f"d{number:02d}" / f"l{other}").symlink_to(f"../d{other:02d}")
    start = time.perf_counter()
    assert ids(tmp_path) == [f"d{number:02d}" for number in range(40)]
    assert time.perf_counter() - start < 30  # 40! ways through


def test_any_depth(tmp_path):
    there = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1500):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("x_t1.nii").touch()
    finally:
        os.chdir(there)
    try:
        (patient,) = find_patients([tmp_path])
        assert len(patient.folder.parts) == len(tmp_path.parts) + 1500
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # shutil of Python 3.11 recurses


def test_ids_differ_to_the_eye(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    names = ["a\x01", "a\\x01", composed, decomposed, "p", "p ", "q  r", "q r", "id\udce9", "id\\udce9", "A", "plain\t"]
    fill(tmp_path, *names)
    found = {patient.folder.name: patient.id for patient in find_patients([tmp_path])}
    assert found == {
        "a\x01": "a\\x01",
        "a\\x01": "a\\\\x01",
        composed: "Zo\\xeb",
        decomposed: "Zoe\\u0308",
        "p": "p",
        "p ": "p\\x20",
        "q  r": "q \\x20r",
        "q r": "q r",
        "id\udce9": "id\\udce9",
        "id\\udce9": "id\\\\udce9",
        "A": "A",
        "plain\t": "plain\\t",
    }


ODD = st.text(st.sampled_from("aé\u0301\\x01n\n\t \u200b\udce9-"), min_size=1, max_size=5).filter(
    lambda s: s not in (".", "..")
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(names=st.sets(ODD, min_size=1, max_size=12))
def test_any_names_get_ids_of_their_own(names):
    found = unique_ids([Path("/c", name) for name in sorted(names)])
    looks = {" ".join(unicodedata.normalize("NFC", name).split()) for name in found}
    assert len(looks) == len(names)
    assert all(name.isprintable() and name.encode() for name in found)


def bids(root):
    for folder in ("sub-01/ses-1", "sub-01/ses-2", "sub-02"):
        start = "_".join(folder.split("/"))
        (root / folder / "anat").mkdir(parents=True)
        for ending in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"):
            (root / folder / "anat" / f"{start}_{ending}.nii.gz").touch()
            (root / folder / "anat" / f"{start}_{ending}.json").touch()
        fill(root, f"{folder}/func", f"{folder}/dwi", image=f"{start}_bold.nii.gz")
    fill(root, "derivatives/brain/sub-01/ses-1/anat", "sourcedata/sub-01", "sub-03/dwi")


def test_bids(tmp_path):
    bids(tmp_path / "data")
    found = find_patients([tmp_path])
    assert [patient.id for patient in found] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02", "dwi"]
    files = match_modalities(found[0].folder)
    assert files.modalities["t1ce"].name == "sub-01_ses-1_ce-gadolinium_T1w.nii.gz"
    assert persons(Cohort(found, (1, 1, 0, 0)), ()) == [0, 0, 2, 3]
    assert ids(tmp_path / "data" / "derivatives") == ["sub-01_ses-1"]
    raw, again = find_patients([tmp_path / "data" / "sub-01" / "ses-1", tmp_path / "data" / "derivatives"])
    assert persons(Cohort((raw, again), (1, 1)), ()) == [0, 0]


def test_two_datasets_of_bids_are_other_persons(tmp_path):
    fill(tmp_path, "A/sub-01/anat", "B/sub-01/anat", "A/sub-02/anat")
    found = find_patients([tmp_path])
    assert [patient.id for patient in found] == ["A/sub-01/anat", "sub-02", "B/sub-01/anat"]
    assert persons(Cohort(found, (1, 0, 0)), ()) == [0, 1, 2]


def test_numbers_of_brats_2013_and_visits(tmp_path):
    fill(tmp_path, "HGG/0000", "LGG/0000", "P1/visit1", "P1/visit2", "P2/visit1", "A/p", "B/p")
    found = find_patients([tmp_path])
    names = ["A/p", "B/p", "HGG/0000", "LGG/0000", "P1/visit1", "visit2", "P2/visit1"]
    assert [patient.id for patient in found] == names
    assert persons(Cohort(found, (1, 1, 1, 0, 1, 1, 0)), ()) == [0, 0, 2, 3, 4, 4, 6]


def evidence(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    image.header["descrip"] = EVIDENCE_MARK
    nib.save(image, file)


def test_results_are_no_patients(tmp_path):
    fill(tmp_path, "p_t1", "evidence", "patients/a")
    for name in ("records.jsonl", "predictions.csv"):
        (tmp_path / "p_t1").joinpath("results").mkdir(exist_ok=True)
        (tmp_path / "p_t1" / "results" / name).touch()
    evidence(tmp_path / "p_t1" / "results" / "evidence" / "p_t1.nii.gz")
    evidence(tmp_path / "maps" / "h1.nii.gz")
    evidence(tmp_path / "maps" / "h2.nii")
    assert ids(tmp_path) == ["evidence", "p_t1", "a"]  # a patient may be called evidence
    with pytest.raises(CohortError, match=r"no patient below .*Results of grade"):
        find_patients([tmp_path / "maps"])
