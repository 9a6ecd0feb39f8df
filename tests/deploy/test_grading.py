"""The face for Python: `docs/python.md` word for word, and what it does not show."""

from __future__ import annotations

import doctest
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest

from deploy import images, load_model
from deploy.model.folder import Model
from toolkit.data.patients import MODALITIES, Patient, match_modalities
from toolkit.errors import CohortError, ModelError, OutOfMemory, PatientRefused

ROOT = Path(__file__).parents[2]
SMALL = {
    "data.spacing": 6.0,
    "data.shape": [24, 32, 24],
    "network.depth": 10,
    "training.device": "cpu",
    "data.validation": 0.34,
    "training.ema": 0,
}


@pytest.fixture
def home(model: Model, patients: tuple[Patient, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the page has it: a model, a patient, a broken one, a cohort."""
    shutil.copytree(model.folder, tmp_path / "model")
    first = tmp_path / "patients" / "first"
    first.mkdir(parents=True)
    for name, file in match_modalities(patients[0].folder).modalities.items():
        shutil.copy(file, first / f"first_{name}.nii.gz")
    broken = tmp_path / "patients" / "broken"
    shutil.copytree(first, broken)
    (broken / "first_t1.nii.gz").write_bytes(b"no image")
    shutil.copytree(patients[0].folder.parents[1], tmp_path / "cohort")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_is_right(home: Path) -> None:
    failed, tried = doctest.testfile(
        str(ROOT / "docs" / "python.md"),
        module_relative=False,
        globs={"SMALL": SMALL},
        optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL,
    )
    assert tried > 15
    assert failed == 0


def test_what_is_no_single_patient_is_an_error(home: Path) -> None:
    model = load_model("model")
    with pytest.raises(CohortError, match="does not exist"):
        model.predict("nowhere")
    with pytest.raises(CohortError, match="2 patients"):
        model.predict("patients")
    image = nib.load(home / "patients" / "first" / "first_t1.nii.gz")
    with pytest.raises(PatientRefused, match="flair, t1, t1ce, t2"):
        model.predict({"t1": image})
    assert [answer.patient for answer in model.predict(["patients"])] == ["broken", "first"]


def test_threads_may_share_a_model(patients: tuple[Patient, ...], model: Model) -> None:
    opened = load_model(model.folder)
    alone = {one.id: opened.predict(one.folder).probability for one in patients[:3]}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: opened.predict(one.folder), patients[:3] * 8))
    assert len(set(alone.values())) == 3
    assert [answer.probability for answer in together] == [alone[answer.patient] for answer in together]
    assert [answer.patient for answer in together] == [one.id for one in patients[:3] * 8]


def test_a_patient_after_one_that_failed_gets_his_own_answer(
    patients: tuple[Patient, ...], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = load_model(model.folder)
    wanted = opened.predict(patients[1].folder).probability
    with monkeypatch.context() as patch, pytest.raises(OutOfMemory):
        patch.setattr(opened._runtime, "infer", Mock(side_effect=OutOfMemory("full.")))
        opened.predict(patients[0].folder)
    answer = opened.predict(patients[1].folder)
    assert (answer.patient, answer.probability) == (patients[1].id, wanted)


def test_evidence_is_that_of_the_images_that_were_graded(
    home: Path, patients: tuple[Patient, ...], model: Model
) -> None:
    opened, first = load_model("model"), home / "patients" / "first"
    loaded = {name: nib.load(first / f"first_{name}.nii.gz") for name in MODALITIES}
    voxels = {name: np.asarray(image.dataobj).copy() for name, image in loaded.items()}
    answers = opened.predict(first), opened.predict(images(voxels, loaded["t1"].affine))
    for answer in answers:
        assert answer.evidence()[0].any()
    for name, file in match_modalities(patients[1].folder).modalities.items():
        shutil.copy(file, first / f"first_{name}.nii.gz")
        voxels[name] += 1
    for answer in answers:
        with pytest.raises(PatientRefused, match="no longer those that were graded"):
            answer.evidence()


def test_images_on_different_grids_are_refused(home: Path) -> None:
    files = {name: nib.load(home / "patients" / "first" / f"first_{name}.nii.gz") for name in MODALITIES}
    files["t2"] = nib.Nifti1Image(files["t2"].get_fdata()[1:], files["t2"].affine)
    with pytest.raises(PatientRefused):
        load_model("model").predict(files)


def test_images_that_make_no_patient_are_a_row_of_the_table(home: Path) -> None:
    first = home / "patients" / "first"
    files = {name: nib.load(first / f"first_{name}.nii.gz") for name in MODALITIES}
    voxels = {name: np.asarray(file.dataobj) for name, file in files.items()}
    affine = files["t1"].affine
    odd: list[tuple[Any, str]] = [
        ({**files, "t1": None}, "images of flair, t1ce, t2 were given"),
        ({"t1": files["t1"]}, "images of t1 were given"),
        ({name: nib.MGHImage(x.astype(np.float32), affine) for name, x in voxels.items()}, "flair is a MGHImage"),
        ({name: nib.AnalyzeImage(x, affine) for name, x in voxels.items()}, "flair is a AnalyzeImage"),
        (
            images({name: x != 0 for name, x in voxels.items()}, affine),
            'be a NIfTI file: data dtype "bool"',
        ),
        (images(voxels, affine[:3, :3]), "flair cannot be a NIfTI file: Affine should be shape 4,4"),
        (images(voxels, affine * np.nan), "its affine holds a number that is not finite"),
    ]
    answers = load_model("model").predict([first, *(source for source, _ in odd)])
    assert answers[0].grade is not None
    for answer, (_, reason) in zip(answers[1:], odd, strict=True):
        assert answer.grade is None
        assert reason in answer.reasons[0]
    with pytest.raises(PatientRefused, match="images of t1 were given"):
        answers[2].evidence()


@pytest.mark.parametrize("kind", ["int64", "uint64", "float16"])
def test_arrays_of_other_types_have_the_same_answer(home: Path, kind: str) -> None:
    """The numbers are small and whole here, so that every type holds them."""
    first = home / "patients" / "first"
    files = {name: nib.load(first / f"first_{name}.nii.gz") for name in MODALITIES}
    voxels = {name: np.rint(file.get_fdata() / file.get_fdata().max() * 2000) for name, file in files.items()}
    model, affine = load_model("model"), files["t1"].affine
    wanted = model.predict(images({name: x.astype(np.float32) for name, x in voxels.items()}, affine))
    found = model.predict(images({name: x.astype(kind) for name, x in voxels.items()}, affine))
    assert found.probability == pytest.approx(wanted.probability, abs=1e-6)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (None, "a NoneType is no patient"),
        (b"patients", "a bytes is no patient"),
        (1, "a int is no patient"),
        ({1: None}, "1 is no modality"),
        ({"t1": np.zeros((5, 5, 5))}, r"t1 is a ndarray, no image; .*deploy\.images\(\)"),
    ],
)
def test_what_can_be_no_patient_is_told_before_any_is_graded(
    home: Path, monkeypatch: pytest.MonkeyPatch, source: Any, sentence: str
) -> None:
    model = load_model("model")
    monkeypatch.setattr(model, "_grade", Mock(side_effect=AssertionError("graded")))
    for given in (source, ["patients/first", source]):
        with pytest.raises(CohortError, match=sentence):
            model.predict(given)


def test_an_altered_model_is_not_opened(home: Path) -> None:
    (home / "model" / "manifest.json").write_text("{}")
    with pytest.raises(ModelError):
        load_model("model")


def test_importing_it_loads_no_torch() -> None:
    code = (
        "import sys, deploy; deploy.load_model; print([m for m in ('torch', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
