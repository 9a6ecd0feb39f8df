"""The table and the record."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.results.journal import Journal
from deploy.results.record import Record, Seconds
from deploy.results.table import COLUMNS, Results, prepare
from toolkit.errors import GradeError


def record(patient: str, probability: float | None = 0.75) -> Record:
    refused = probability is None
    return Record(
        patient=patient,
        folder=f"/data/{patient}",
        grade=None if refused else "HGG",
        probability=probability,
        threshold=0.5,
        verdict=None,
        reason="t1 missing" if refused else "",
        notes=(),
        runtime="onnx fp32 cpu",
        seconds=Seconds(read=0.25, infer=1.0),
    )


@contextmanager
def writing(folder: Path, **head: str) -> Iterator[Callable[[Record], None]]:
    """Results, as a prediction writes them."""
    with Journal(folder, "model", resume=False) as journal, Results(folder, journal, head) as results:

        def add(one: Record) -> None:
            journal.add(one)
            results.add(one)

        yield add


def rows(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_table_and_record(tmp_path: Path) -> None:
    with writing(tmp_path, model="abc") as add:
        add(record("001"))
        add(record('=cmd|"x", Å', None))
    assert rows(tmp_path) == [
        list(COLUMNS),
        ["001", "HGG", "0.75", "0.5", "", "", "onnx fp32 cpu", "1.25"],
        ['=cmd|"x", Å', "", "", "0.5", "", "t1 missing", "onnx fp32 cpu", "1.25"],
    ]
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert (content["model"], content["complete"]) == ("abc", True)
    first, second = content["patients"]
    assert first == json.loads(record("001").model_dump_json())
    assert (second["grade"], second["probability"], second["verdict"]) == (None, None, None)


def test_a_row_is_on_disk_before_the_next_patient(tmp_path: Path) -> None:
    with writing(tmp_path) as add:
        for number in range(3):
            add(record(f"P{number}"))
            assert len(rows(tmp_path)) == number + 2
            assert not (tmp_path / "predictions.json").exists()


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path) as add:
        add(record("P0"))
        raise KeyboardInterrupt
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["complete"] is False
    assert [patient["patient"] for patient in content["patients"]] == ["P0"]


def test_earlier_results_are_replaced_whole(tmp_path: Path) -> None:
    for patient in ("earlier", "later"):
        with writing(tmp_path) as add:
            add(record(patient))
    assert [row[0] for row in rows(tmp_path)] == ["patient", "later"]
    assert "earlier" not in (tmp_path / "predictions.json").read_text()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GradeError, match=r"results cannot be written to .*file.*--out"):
        prepare(tmp_path / "file")
    with pytest.raises(GradeError, match="results cannot be written"):
        prepare(tmp_path / "file" / "below")
    prepare(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
