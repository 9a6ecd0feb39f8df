"""An answer as DICOM: valid, in the patient's own study, the same UIDs each time, and nobody's name burnt in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from deploy.hospital.results.capture import draw_sheet
from deploy.hospital.results.evidence_map import Evidence
from deploy.hospital.results.identity import Answer
from deploy.hospital.results.pictures import key_pictures
from deploy.hospital.results.report import read_values
from deploy.hospital.results.write import write_answer
from deploy.results.record import Record, Seconds
from tests.deploy.hospital.programs import needs, run, validation_errors
from tests.deploy.hospital.tiny import JAPANESE, images_of, reread, tiny_study

KINDS = ("sr", "sr3d", "sc", "pdf")
MODEL = "5e" * 32
GRADED = Record(
    patient="P1",
    folder="/somewhere",
    grade="HGG",
    probability=0.8734567891234,
    threshold=0.4123,
    verdict="uncertain",
    explanation="Both grades are possible at the model's error rate; needs review by a clinician.",
    grades=("LGG", "HGG"),
    notes=("prepared by grade, not by BraTS",),
    runtime="onnx fp32 cpu",
    seconds=Seconds(read=1.0, infer=0.5),
)
REFUSED = Record(
    patient="P1",
    folder="/somewhere",
    threshold=0.4123,
    reason="series 4 and 8 are both T1: which is after contrast? Série “α” — say it with --series t1ce=8.",
    runtime="onnx fp32 cpu",
    seconds=Seconds(read=1.0, infer=0.0),
)


@pytest.fixture
def study(tmp_path: Path) -> dict[str, list[Dataset]]:
    return reread(tiny_study(), tmp_path / "study")


@pytest.fixture
def scan() -> np.ndarray:
    volume = np.random.default_rng(0).normal(size=(4, 20, 24, 18)).astype(np.float32)
    volume[:, :4] = 0  # outside the brain
    volume[:, :, :, :2] = 0
    return volume


def answers(study: dict[str, list[Dataset]]) -> dict[str, Answer]:
    return {
        "graded": Answer(GRADED, MODEL, images_of(study), study),
        "refused": Answer(REFUSED, MODEL, images_of(study)),
    }


def written(answer: Answer, scan: np.ndarray, folder: Path, kinds: tuple[str, ...] = KINDS) -> dict[str, Path]:
    levels = key_pictures(scan) if answer.record.grade and {"sc", "pdf"} & set(kinds) else ()
    return dict(zip(kinds, write_answer(answer, levels, kinds, folder), strict=True))


@needs("/usr/bin/dciodvfy")
@pytest.mark.parametrize("which", ["graded", "refused"])
def test_every_object_is_valid(which: str, study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path) -> None:
    for file in written(answers(study)[which], scan, tmp_path / "out").values():
        assert validation_errors(file) == []


@needs("/usr/bin/dciodvfy")
def test_a_sender_that_leaves_out_type_2_attributes(
    study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path
) -> None:
    for image in images_of(study):
        for keyword in ("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            delattr(image, keyword)
    for file in written(answers(study)["graded"], scan, tmp_path / "out").values():
        assert validation_errors(file) == []


@needs("/usr/bin/dsrdump")
@pytest.mark.parametrize("kind", ["sr", "sr3d"])
def test_dsrdump_reads_the_values_of_the_record(
    kind: str, study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path
) -> None:
    file = written(answers(study)["graded"], scan, tmp_path / "out", (kind,))[kind]
    text = run("/usr/bin/dsrdump", "+Pl", file).stdout
    numbers = dict(re.findall(r'NUM:\(,,"([^"]+)"\)="([^"]+)"', text))
    assert float(numbers["Calibrated probability of high-grade glioma"]) == pytest.approx(GRADED.probability, abs=1e-12)
    assert float(numbers["High grade is decided from this probability"]) == GRADED.threshold
    assert '"Glioma grade proposed by the model")=(HGG,99GRADE' in text
    assert "=(UNCERTAIN,99GRADE" in text
    assert f"model sha256 {MODEL}" in text
    assert GRADED.explanation in text
    assert "Preliminary Flag    : PRELIMINARY" in text
    assert "Verification Flag   : UNVERIFIED" in text
    assert text.count("MR image") == 8  # four series of two slices


def test_highdicom_reads_the_report_back(study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path) -> None:
    file = written(answers(study)["graded"], scan, tmp_path / "out", ("sr",))["sr"]
    report = hd.sr.srread(file)
    group = report.content.get_image_measurement_groups()[0]
    assert [float(m.value) for m in group.get_measurements()] == [pytest.approx(0.8734567891234), 0.4123]
    assert len(group.source_images) == 8
    assert {image.referenced_sop_instance_uid for image in group.source_images} == {
        image.SOPInstanceUID for image in images_of(study)
    }
    evidence = report.CurrentRequestedProcedureEvidenceSequence
    assert len(evidence[0].ReferencedSeriesSequence) == 4


@pytest.mark.parametrize("which", ["graded", "refused"])
def test_a_model_of_phantoms_says_so_in_every_object(
    which: str, study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path
) -> None:
    never = replace(answers(study)[which], origin="The model was trained on phantoms: never for patients.")
    for kind, file in written(never, scan, tmp_path / "never").items():
        instance = pydicom.dcmread(file)
        assert "NEVER FOR PATIENTS" in instance.SeriesDescription, kind
        assert "RESEARCH USE" not in instance.SeriesDescription, kind
    assert b"The model was trained on phantoms: never for patients." in (tmp_path / "never" / "sr.dcm").read_bytes()
    shown, usual = (draw_sheet(one, ()) for one in (never, answers(study)[which]))
    assert "trained on phantoms: never for patients" in " ".join(text.get_text() for text in shown.texts)
    assert "phantoms" not in " ".join(text.get_text() for text in usual.texts)


def test_a_refused_study_gets_its_reason(study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path) -> None:
    files = written(answers(study)["refused"], scan, tmp_path / "out", ("sr",))
    values = read_values(pydicom.dcmread(files["sr"]))
    assert values["grade"] is None
    assert values["probability"] is None
    assert values["verdict"] == "REFUSED"
    assert values["reason"].startswith("series 4 and 8 are both T1")
    assert "\\u03b1" in values["reason"]  # a letter that Latin-1 does not have


def test_it_belongs_to_the_patients_study(study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path) -> None:
    source = images_of(study)[0]
    series = set()
    for file in written(answers(study)["graded"], scan, tmp_path / "out").values():
        instance = pydicom.dcmread(file)
        for keyword in ("StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber", "PatientID", "PatientName"):
            assert instance[keyword].value == source[keyword].value, keyword
        assert "RESEARCH USE" in instance.SeriesDescription
        assert instance.SeriesNumber > 9000
        series.add(instance.SeriesInstanceUID)
        assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0
    assert len(series) == 4
    assert series.isdisjoint(image.SeriesInstanceUID for image in images_of(study))


def test_a_repeat_has_the_same_uids_and_another_model_or_study_has_not(
    study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path
) -> None:
    def uids(answer: Answer, name: str) -> set[str]:
        files = written(answer, scan, tmp_path / name, ("sr", "sr3d")).values()
        return {str(pydicom.dcmread(file).SOPInstanceUID) for file in files}

    first = uids(answers(study)["graded"], "first")
    late = uids(Answer(GRADED, MODEL, images_of(study)[:-1], study), "late")  # other slices of the same study
    refused = uids(answers(study)["refused"], "refused")  # the answer that is replaced may be a refusal
    assert len(first) == 2
    assert first == late == refused
    assert first.isdisjoint(uids(Answer(GRADED, "ab" * 32, images_of(study), study), "model"))
    other = reread(tiny_study(2), tmp_path / "other")
    assert first.isdisjoint(uids(Answer(GRADED, MODEL, images_of(other), other), "study"))


@needs("/usr/bin/dciodvfy")
def test_japanese_names_survive(scan: np.ndarray, tmp_path: Path) -> None:
    raw = tiny_study()
    for image in images_of(raw):
        image.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        image.PatientName = JAPANESE
    study = reread(raw, tmp_path / "study")
    for file in written(answers(study)["graded"], scan, tmp_path / "out").values():
        instance = pydicom.dcmread(file)
        assert instance.PatientName.ideographic == "山田^太郎"
        assert instance.PatientName.phonetic == "やまだ^たろう"
        assert instance.SpecificCharacterSet == ["", "ISO 2022 IR 87"]
        assert "ESC" not in str(instance.SeriesDescription)
        assert validation_errors(file) == []


def test_a_name_of_one_word_is_nowhere_told(scan: np.ndarray, tmp_path: Path) -> None:
    raw = tiny_study()
    for image in images_of(raw):
        image.PatientName = "ANON"
    study = reread(raw, tmp_path / "study")
    for file in written(answers(study)["graded"], scan, tmp_path / "out").values():  # warnings are errors in the tests
        assert pydicom.dcmread(file).PatientName == "ANON"


def test_the_capture_shows_each_modality_and_nobody(
    study: dict[str, list[Dataset]], scan: np.ndarray, tmp_path: Path
) -> None:
    files = written(answers(study)["graded"], scan, tmp_path / "out", ("sc",))
    capture = pydicom.dcmread(files["sc"])
    pixels = capture.pixel_array
    assert pixels.shape == (1200, 900, 3)
    amber = (pixels == (255, 176, 0)).all(axis=2)
    assert amber[30:80].sum() > 500  # "research use" is burnt in
    assert capture.BurnedInAnnotation == "NO"
    plain = key_pictures(scan)
    assert [list(level.tiles) for level in plain] == [["flair", "t1", "t1ce", "t2"]] * 3


def test_pictures_are_turned_as_radiologists_look_at_them() -> None:
    scan = np.zeros((4, 10, 12, 5), np.float32)
    scan[:, 1:9, 1:11, 1:4] = np.random.default_rng(1).uniform(-1, 1, (4, 8, 10, 3))
    scan[:, 8, 10, :] = 9  # RAS: the patient's right, in front
    tile = key_pictures(scan)[1].tiles["t1"]
    assert tile.shape == (12, 10, 3)
    bright = np.argwhere(tile[..., 0] == 255)
    assert [1, 1] in bright.tolist()  # front on top, right on the left


def test_strongest_evidence_comes_first_and_in_colour(scan: np.ndarray) -> None:
    evidence = np.zeros(scan.shape[1:], np.float32)
    evidence[10, 10, 5] = -2.0
    first, *rest = key_pictures(scan, evidence)
    assert "strongest evidence" in first.caption
    red, _, blue = (first.tiles["flair"][..., channel].astype(int) for channel in range(3))
    assert (blue - red).max() > 100  # blue: for LGG
    assert all((level.tiles["flair"][..., 0] == level.tiles["flair"][..., 2]).all() for level in rest)


@needs("/usr/bin/dciodvfy")
def test_the_map_is_where_the_series_is(study: dict[str, list[Dataset]], tmp_path: Path) -> None:
    voxels = np.zeros((5, 6, 7), np.float32)
    voxels[1, 2, 3] = 2.5
    turn = np.deg2rad(12.9)
    affine = np.array(
        [
            [1.5, 0, 0, -10],
            [0, 1.5 * np.cos(turn), -1.5 * np.sin(turn), 4],
            [0, 1.5 * np.sin(turn), 1.5 * np.cos(turn), 30],
            [0, 0, 0, 1],
        ]
    )
    answer = answers(study)["graded"]
    (file,) = write_answer(answer, (), ("map",), tmp_path / "out", Evidence(voxels, affine))
    assert validation_errors(file) == []
    volume = hd.imread(file).get_volume()
    place = np.argwhere(volume.array > 2)[0]
    assert volume.array[tuple(place)] == 2.5
    assert volume.map_indices_to_reference(place[None])[0] == pytest.approx(
        (affine @ [1, 2, 3, 1])[:3] * (-1, -1, 1), abs=1e-3
    )
    assert pydicom.dcmread(file).FrameOfReferenceUID == study["t1ce"][0].FrameOfReferenceUID
    assert write_answer(answers(study)["refused"], (), ("map",), tmp_path / "none", Evidence(voxels, affine)) == []


def test_an_empty_scan_gives_no_pictures() -> None:
    assert key_pictures(np.zeros((4, 8, 8, 8), np.float32)) == ()
