"""The journal that a call is resumed from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.results.journal import Chain, Journal, Key, audit_links
from deploy.results.names import JOURNAL
from deploy.results.record import Record, Seconds
from toolkit.errors import GradeError

ANNA, BERT, CARL = ((name, f"/cohort/{name}") for name in ("anna", "bert", "carl"))
LINE = Chain(1, "f" * 64)


def record(key: Key, probability: float | None) -> Record:
    return Record(
        patient=key[0],
        folder=key[1],
        grade=None if probability is None else "HGG",
        probability=probability,
        threshold=0.5,
        reason="t2 missing" if probability is None else "",
        grades=("HGG",),
        runtime="onnx fp32 cpu",
        seconds=Seconds(read=0.1, infer=0.2),
    )


def write(folder: Path, model: str = "m", **probabilities: float | None) -> None:
    """Add records as a resumed call does."""
    with Journal(folder, model) as journal:
        journal.begin(keep=True)
        for number, (name, probability) in enumerate(probabilities.items(), start=1):
            key = name, f"/cohort/{name}"
            journal.add(key, record(key, probability), Chain(number, f"{number:064}"))


def graded(journal: Journal) -> list[Key]:
    return [key for key, entry in journal.entries.items() if entry.graded]


def test_what_was_graded_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, anna=0.7, bert=None)
    write(tmp_path, bert=0.6, carl=0.9)  # the file was repaired: the last line counts
    with Journal(tmp_path, "m") as journal:
        assert graded(journal) == [ANNA, BERT, CARL]
        assert journal.read(ANNA) == record(ANNA, 0.7)
        assert journal.read(BERT).probability == 0.6
        assert journal.entries[CARL].audit == Chain(2, f"{2:064}")
    assert len((tmp_path / JOURNAL).read_text().splitlines()) == 4
    assert {key: line for key, (line, _) in audit_links(tmp_path).items()} == {
        ANNA: Chain(1, f"{1:064}"),
        BERT: Chain(1, f"{1:064}"),
        CARL: Chain(2, f"{2:064}"),
    }


def test_the_same_name_in_another_folder_is_another_patient(tmp_path: Path) -> None:
    write(tmp_path, anna=0.7)
    with Journal(tmp_path, "m") as journal:
        assert ("anna", "/elsewhere/anna") not in journal.entries


def test_nothing_changes_before_it_begins(tmp_path: Path) -> None:
    with Journal(tmp_path, "m"):
        pass
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, anna=0.7)
    (tmp_path / JOURNAL).write_bytes((tmp_path / JOURNAL).read_bytes() + b"{")
    before = (tmp_path / JOURNAL).stat(), (tmp_path / JOURNAL).read_bytes()
    with Journal(tmp_path, "other") as journal:
        assert graded(journal) == [ANNA]
        assert journal.models == {"m"}
    after = (tmp_path / JOURNAL).stat()
    assert (after.st_mtime_ns, (tmp_path / JOURNAL).read_bytes()) == (before[0].st_mtime_ns, before[1])


@pytest.mark.parametrize("left", [b"{", b'{"model": "m", "record": {"patient": "bert"}}'])
def test_what_a_dying_call_left_of_a_line_is_cut_off(left: bytes, tmp_path: Path) -> None:
    write(tmp_path, anna=0.7)
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + left)
    assert list(audit_links(tmp_path)) == [ANNA]
    write(tmp_path, bert=0.2)
    assert (tmp_path / JOURNAL).read_bytes().startswith(whole + b'{"model": "m", "folder"')
    with Journal(tmp_path, "m") as journal:
        assert graded(journal) == [ANNA, BERT]


def test_an_altered_line_is_told(tmp_path: Path) -> None:
    write(tmp_path, anna=0.7)
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + b'{"model": "m"}\n')
    with Journal(tmp_path, "m") as journal:
        assert f"the line at byte {len(whole)} was altered" in str(journal.damage)
    with pytest.raises(GradeError, match="a line was altered"):
        audit_links(tmp_path)


def test_one_call_at_a_time(tmp_path: Path) -> None:
    write(tmp_path, anna=0.7)
    with Journal(tmp_path, "m"), pytest.raises(GradeError, match="another call is writing"), Journal(tmp_path, "m"):
        pass
    with Journal(tmp_path / "new", "m") as one, Journal(tmp_path / "new", "m") as other:
        (tmp_path / "new").mkdir()
        one.begin(keep=True)
        with pytest.raises(GradeError, match="another call is writing"):
            other.begin(keep=True)


def test_replaced_unless_it_is_kept(tmp_path: Path) -> None:
    write(tmp_path, anna=0.7)
    with Journal(tmp_path, "new") as journal:
        journal.begin(keep=False)
        assert not journal.entries
    assert (tmp_path / JOURNAL).read_bytes() == b""


@pytest.mark.parametrize("line", ["[" * 100_000, "[]", '{"model": "m", "record": {}, "audit": {"line": Infinity}}'])
def test_a_line_of_other_things_is_told(tmp_path: Path, line: str) -> None:
    write(tmp_path, anna=0.7)
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write(f"{line}\n")
    with Journal(tmp_path, "m") as journal:
        assert "was altered" in str(journal.damage)
    with pytest.raises(GradeError, match="a line was altered"):
        audit_links(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / JOURNAL)
    with pytest.raises(GradeError, match="cannot be continued: it is not a plain file"), Journal(tmp_path, "m"):
        pass
    with pytest.raises(GradeError, match="cannot be read: it is not a plain file"):
        audit_links(tmp_path)
