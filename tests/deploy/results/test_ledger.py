"""One results folder over several calls, and over every order of failure."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.results.audit import Audit, verify_audit
from deploy.results.inputs import hash_inputs
from deploy.results.journal import Journal
from deploy.results.ledger import Earlier, Ledger
from deploy.results.record import Record, Seconds
from deploy.results.table import Table
from toolkit.data.patients import MODALITIES, Patient
from toolkit.errors import GradeError


class Stop(Exception):
    """The call ends here, as by a power cut."""


@pytest.fixture
def people(tmp_path: Path) -> list[Patient]:
    """Four folders whose files are no images: a ledger does not look inside."""
    found = []
    for name in ("p0", "p1", "p2", "p3"):
        folder = tmp_path / "cohort" / name
        folder.mkdir(parents=True)
        for modality in MODALITIES:
            (folder / f"{name}_{modality}.nii.gz").write_text(f"{name} {modality}")
        found.append(Patient(name, folder))
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def answer(patient: Patient, refused: bool = False, runtime: str = "onnx fp32 cpu") -> Record:
    return Record(
        patient=patient.id,
        folder=str(patient.folder),
        grade=None if refused else "HGG",
        probability=None if refused else 0.75,
        threshold=0.5,
        reason="t1 missing" if refused else "",
        runtime=runtime,
        inputs=hash_inputs(patient),
        seconds=Seconds(read=0.25, infer=1.0),
    )


def call(
    out: Path,
    patients: Sequence[Patient],
    earlier: Earlier = "refuse",
    *,
    model: str = "abc",
    asked: tuple[str, str] = ("auto", "auto"),
    work: Callable[[Patient], Record] = answer,
) -> tuple[list[str], list[str]]:
    """A whole call: who was graded in it, and what was noted."""
    graded = []
    with Ledger(patients, Audit(out, {}, model, ids=True), earlier, 2, asked) as ledger, ledger.writing({"who": "me"}):
        for patient in patients:
            if ledger.kept(patient) is None:
                ledger.add(patient, work(patient))
                graded.append(patient.id)
    return graded, ledger.notes


def names(out: Path) -> list[str]:
    """Who is in the table, which the full record repeats, each of them with a line in a sound audit."""
    with (out / "predictions.csv").open(newline="") as stream:
        found = [row["patient"] for row in csv.DictReader(stream)]
    content = json.loads((out / "predictions.json").read_text())
    assert [record["patient"] for record in content["patients"]] == found
    verify_audit(out / "audit.jsonl")
    audited = {line["inputs"] for line in lines(out)}
    assert {record["inputs"] for record in content["patients"]} <= audited
    return found


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_results_of_others_are_an_error_and_stay_as_they_are(people: list[Patient], out: Path) -> None:
    call(out, people[:2])
    before = files(out)
    with pytest.raises(GradeError, match=r"results of 2 other patients; add to them with --resume, replace .*--overwr"):
        call(out, people[2:])
    with pytest.raises(GradeError, match="results of 1 other patient;"):
        call(out, people[1:])
    assert files(out) == before
    assert call(out, people[2:], "resume") == (["p2", "p3"], [])
    assert names(out) == ["p0", "p1", "p2", "p3"]
    assert call(out, people[2:], "overwrite")[0] == ["p2", "p3"]
    assert names(out) == ["p2", "p3"]
    assert len(lines(out)) == 6


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("grade", "LGG", r"\(grade\) is not what"),
        ("probability", 0.25, r"\(probability\) is not what"),
        ("probability", 7.5, "was altered"),
        ("verdict", "single grade", r"\(verdict\) is not what"),
        ("inputs", "0" * 64, r"\(inputs\) is not what"),
    ],
)
def test_an_answer_that_was_edited_is_neither_kept_nor_verified(
    people: list[Patient], out: Path, name: str, value: object, said: str
) -> None:
    call(out, people)
    journal = out / "records.jsonl"
    first, *rest = journal.read_text().splitlines()
    content = json.loads(first)
    assert content["record"][name] != value
    content["record"][name] = value
    journal.write_text("\n".join([json.dumps(content), *rest]) + "\n")
    before = files(out)
    with pytest.raises(GradeError, match=said):
        verify_audit(out / "audit.jsonl")
    with pytest.raises(GradeError, match="altered"):
        call(out, people, "resume")
    assert files(out) == before


def test_the_same_patients_are_replaced_and_that_is_said(people: list[Patient], out: Path) -> None:
    call(out, people[:2])
    graded, notes = call(out, people[:3])
    assert graded == ["p0", "p1", "p2"]
    assert "are replaced; --resume keeps them" in notes[0]
    assert names(out) == ["p0", "p1", "p2"]
    assert [line.get("repeats") for line in lines(out)] == [None, None, 1, 2, None]


def test_a_resumed_call_keeps_the_order_and_tries_the_refused_again(people: list[Patient], out: Path) -> None:
    call(out, people[:3], work=lambda patient: answer(patient, refused=patient.id == "p1"))
    assert call(out, people, "resume")[0] == ["p1", "p3"]
    assert names(out) == ["p0", "p1", "p2", "p3"]


def test_every_order_of_failure(people: list[Patient], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends before or after each of the three writes of the second patient; then it is resumed."""

    def cut(part: type, before: bool) -> None:
        original = part.add
        count = 0

        def add(self: object, *given: object) -> object:
            nonlocal count
            count += 1
            if count == 2 and before:
                raise Stop
            result = original(self, *given)
            if count == 2:
                raise Stop
            return result

        monkeypatch.setattr(part, "add", add)

    repeated = []
    for part in (Audit, Journal, Table):
        for before in (True, False):
            shutil.rmtree(out, ignore_errors=True)
            cut(part, before)
            with pytest.raises(Stop):
                call(out, people)
            monkeypatch.undo()
            graded, notes = call(out, people, "resume")
            assert names(out) == ["p0", "p1", "p2", "p3"]
            assert notes == []
            again = [line["repeats"] for line in lines(out) if "repeats" in line]
            assert len(lines(out)) - len(again) == 4  # nobody counts twice
            repeated.append((part.__name__, before, graded[0], again))
    assert repeated == [
        ("Audit", True, "p1", []),
        ("Audit", False, "p1", [2]),
        ("Journal", True, "p1", [2]),
        ("Journal", False, "p2", []),
        ("Table", True, "p2", []),
        ("Table", False, "p2", []),
    ]


def test_a_killed_call_leaves_everybody_in_the_table(people: list[Patient], out: Path) -> None:
    """As SIGKILL does: nothing is closed, the last record is half written."""
    call(out, people[:1])
    with Ledger(people, Audit(out, {}, "abc", ids=True), "resume") as ledger:
        writing = ledger.writing({})
        writing.__enter__()
        ledger.add(people[1], answer(people[1]))
        with (out / "predictions.csv").open(newline="") as stream:
            assert [row["patient"] for row in csv.DictReader(stream)] == ["p0", "p1"]
        saved = files(out)
        writing.__exit__(None, None, None)
    shutil.rmtree(out)
    out.mkdir()
    for name, content in saved.items():
        (out / name).write_bytes(content)
    (out / "records.jsonl").write_bytes(saved["records.jsonl"][:-30])
    assert verify_audit(out / "audit.jsonl").lines == 2
    assert call(out, people, "resume") == (["p1", "p2", "p3"], [])
    assert names(out) == ["p0", "p1", "p2", "p3"]
    assert [line.get("repeats") for line in lines(out)] == [None, None, 2, None, None]


@pytest.mark.parametrize("cut", [1, 30, 200, 2000])
@pytest.mark.parametrize("which", [("records.jsonl",), ("audit.jsonl",), ("records.jsonl", "audit.jsonl")])
def test_a_call_that_died_in_the_middle_of_writing(
    which: tuple[str, ...], cut: int, people: list[Patient], out: Path
) -> None:
    call(out, people)
    for name in which:
        (out / name).write_bytes((out / name).read_bytes()[:-cut])
    # Other bytes than the first time, in the place of those that were cut off.
    call(out, people, "resume", work=lambda patient: answer(patient, runtime="tensorrt fp16 cuda:0"))
    assert names(out) == ["p0", "p1", "p2", "p3"]
    assert call(out, people, "resume") == ([], [])


@pytest.mark.parametrize("left", [0, 1, 3])
def test_lost_audit_lines_are_told_and_added_again(left: int, people: list[Patient], out: Path, tmp_path: Path) -> None:
    call(out, people)
    kept = (out / "audit.jsonl").read_bytes().splitlines(keepends=True)[:left]
    (out / "audit.jsonl").write_bytes(b"".join(kept))
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for folder in (out, copy):
        with pytest.raises(GradeError, match="lines were removed"):
            verify_audit(folder / "audit.jsonl")
        (folder / "predictions.json").unlink()
        with pytest.raises(GradeError, match="lines are missing at the end"):
            verify_audit(folder / "audit.jsonl")
    graded, notes = call(out, people, "resume")
    assert graded == []
    assert notes == [f"{4 - left} results have no line in the audit; lines are added that say so."]
    assert names(out) == ["p0", "p1", "p2", "p3"]
    assert [line.get("restored", False) for line in lines(out)] == [False] * left + [True] * (4 - left)


def test_with_nothing_left_to_grade_the_record_still_knows_the_audit(people: list[Patient], out: Path) -> None:
    call(out, people)
    assert call(out, people, "resume")[0] == []
    (out / "records.jsonl").unlink()
    whole = (out / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (out / "audit.jsonl").write_bytes(b"".join(whole[:-1]))
    with pytest.raises(GradeError, match="knows 4 lines"):
        verify_audit(out / "audit.jsonl")


def test_changed_images_are_told_and_graded_again(people: list[Patient], out: Path) -> None:
    call(out, people)
    for name in ("p1", "p3"):
        page, evidence = out / "patients" / f"{name}.html", out / "evidence" / f"{name}.nii.gz"
        own = out / "evidence" / "own-grid" / f"{name}.nii.gz"
        for file in (page, evidence, own, out / "report.html"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("of the old answer")
    (people[1].folder / "p1_t2.nii.gz").write_text("p1 T2")
    graded, notes = call(out, people, "resume")
    assert graded == ["p1"]
    assert notes == ["The images of p1 changed after they were graded; they are graded again."]
    assert names(out) == ["p0", "p1", "p2", "p3"]
    assert sorted(path.name for path in out.rglob("p*.*") if path.parent != out) == [
        "p3.html",
        "p3.nii.gz",
        "p3.nii.gz",
    ]
    assert not (out / "report.html").exists()


def test_a_changed_patient_is_not_in_the_results_before_a_new_answer(people: list[Patient], out: Path) -> None:
    def stopped(_: Patient) -> Record:
        raise Stop

    call(out, people)
    (people[1].folder / "p1_t2.nii.gz").write_text("p1 T2")
    with pytest.raises(Stop):
        call(out, people, "resume", work=stopped)
    assert json.loads((out / "predictions.json").read_text())["complete"] is False
    with (out / "predictions.csv").open(newline="") as stream:
        assert [row["patient"] for row in csv.DictReader(stream)] == ["p0", "p2", "p3"]
    assert call(out, people, "resume")[0] == ["p1"]
    assert names(out) == ["p0", "p1", "p2", "p3"]


def test_one_name_is_one_patient_over_all_calls(people: list[Patient], out: Path, tmp_path: Path) -> None:
    call(out, people[:2])
    with pytest.raises(GradeError, match="another patient p0"):
        call(out, [Patient("p0", people[3].folder)], "resume")
    with pytest.raises(GradeError, match="under another name than a/p0"):
        call(out, [Patient("a/p0", people[0].folder)], "resume")
    link = tmp_path / "links" / "p0"
    link.parent.mkdir()
    link.symlink_to(people[0].folder)
    assert call(out, [Patient("p0", link)], "resume")[0] == []  # the same folder, by another way


def test_what_cannot_be_continued(people: list[Patient], out: Path) -> None:
    call(out, people)
    with pytest.raises(GradeError, match="results of model abc, and this is new"):
        call(out, people, "resume", model="new")
    for asked in (("tensorrt", "auto"), ("onnx", "cuda:0")):
        with pytest.raises(GradeError, match="p0 was graded by onnx fp32 cpu and is kept, but"):
            call(out, people, "resume", asked=asked)
    assert call(out, people, "resume", asked=("onnx", "cpu"))[0] == []
    (out / "records.jsonl").write_text("{}\n")
    for earlier in ("refuse", "resume"):
        with pytest.raises(GradeError, match="the line at byte 0 was altered"):
            call(out, people, earlier)
    (out / "records.jsonl").unlink()
    for earlier in ("refuse", "resume"):
        with pytest.raises(GradeError, match="that no call can be resumed from"):
            call(out, people, earlier)
    assert len(call(out, people, "overwrite")[0]) == 4
    lines = (out / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (out / "audit.jsonl").write_bytes(b"".join([lines[0], *lines[2:]]))
    for earlier in ("refuse", "resume", "overwrite"):
        with pytest.raises(GradeError, match="before line 2 a line was removed"):
            call(out, people, earlier)
