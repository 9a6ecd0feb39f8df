"""The journal that a restarted call goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.results.journal import JOURNAL, Journal, key_of
from deploy.results.record import Record, Seconds
from toolkit.data.patients import Patient
from toolkit.errors import GradeError

ANNA, BERT, CARL = (Patient(name, Path("/cohort") / name) for name in ("anna", "bert", "carl"))


def record(patient: Patient, probability: float | None) -> Record:
    return Record(
        patient=patient.id,
        folder=str(patient.folder),
        grade=None if probability is None else "HGG",
        probability=probability,
        threshold=0.5,
        reason="t2 missing" if probability is None else "",
        grades=("HGG",),
        runtime="onnx fp32 cpu",
        seconds=Seconds(read=0.1, infer=0.2),
    )


def test_what_was_graded_is_finished_and_read_back(tmp_path: Path) -> None:
    with Journal(tmp_path, "m", resume=True) as journal:
        assert not journal.finished(ANNA)
        journal.add(record(ANNA, 0.7))
        journal.add(record(BERT, None))
        assert journal.read(key_of(BERT)) == record(BERT, None)
    with Journal(tmp_path, "m", resume=True) as journal:
        assert [journal.finished(patient) for patient in (ANNA, BERT, CARL)] == [True, False, False]
        assert journal.read(key_of(ANNA)) == record(ANNA, 0.7)
        journal.add(record(BERT, 0.6))  # the file was mended: the last line counts
        journal.add(record(CARL, 0.9))
        assert journal.read(key_of(ANNA)) == record(ANNA, 0.7)
    with Journal(tmp_path, "m", resume=True) as journal:
        assert all(journal.finished(patient) for patient in (ANNA, BERT, CARL))
        assert journal.read(key_of(BERT)).probability == 0.6
    assert len((tmp_path / JOURNAL).read_text().splitlines()) == 4


def test_the_same_name_in_another_folder_is_another_patient(tmp_path: Path) -> None:
    with Journal(tmp_path, "m", resume=True) as journal:
        journal.add(record(ANNA, 0.7))
    with Journal(tmp_path, "m", resume=True) as journal:
        assert not journal.finished(Patient("anna", Path("/elsewhere/anna")))


@pytest.mark.parametrize("left", [b"{", b'{"model": "m", "record": {"patient": "bert"}}'])
def test_what_a_dying_call_left_of_a_line_is_cut_off(left: bytes, tmp_path: Path) -> None:
    with Journal(tmp_path, "m", resume=True) as journal:
        journal.add(record(ANNA, 0.7))
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + left)
    with Journal(tmp_path, "m", resume=True) as journal:
        assert journal.finished(ANNA)
        assert not journal.finished(BERT)
        journal.add(record(BERT, 0.2))
    assert (tmp_path / JOURNAL).read_bytes().startswith(whole + b'{"model": "m", "record"')
    with Journal(tmp_path, "m", resume=True) as journal:
        assert journal.read(key_of(BERT)).probability == 0.2


def test_another_models_journal_and_an_altered_one_are_not_continued(tmp_path: Path) -> None:
    with Journal(tmp_path, "old", resume=True) as journal:
        journal.add(record(ANNA, 0.7))
    with pytest.raises(GradeError, match="begun by model old, and this is new"), Journal(tmp_path, "new", resume=True):
        pass
    with (
        Journal(tmp_path, "old", resume=True),
        pytest.raises(GradeError, match="another call is writing"),
        Journal(tmp_path, "old", resume=True),
    ):
        pass
    (tmp_path / JOURNAL).write_text('{"model": "old"}\n')
    with pytest.raises(GradeError, match="the line at byte 0 was altered"), Journal(tmp_path, "old", resume=True):
        pass


def test_begun_anew_unless_asked_to_go_on(tmp_path: Path) -> None:
    with Journal(tmp_path, "old", resume=False) as journal:
        journal.add(record(ANNA, 0.7))
    with Journal(tmp_path, "new", resume=False) as journal:
        assert not journal.finished(ANNA)
