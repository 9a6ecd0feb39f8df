"""The table and the record."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.results.record import Record, Seconds
from deploy.results.table import COLUMNS, Table, check_writable, read_records, write_record
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


def rows(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def begun(folder: Path, *records: Record) -> Table:
    table = Table(folder, "abc")
    table.begin(records)
    return table


def test_table_and_record(tmp_path: Path) -> None:
    with closing(begun(tmp_path, record("001"))) as table:
        table.add(record('x,"y" Å', None))
    assert rows(tmp_path) == [
        list(COLUMNS),
        ["001", "graded", "HGG", "0.75", "0.5", "", "", "onnx fp32 cpu", "abc", "1.25"],
        ['x,"y" Å', "refused", "", "", "0.5", "", "t1 missing", "onnx fp32 cpu", "abc", "1.25"],
    ]
    write_record(tmp_path, {"complete": True}, (record("001"), record("2", None)))
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["complete"] is True
    first, second = content["patients"]
    assert first == json.loads(record("001").model_dump_json())
    assert (second["grade"], second["probability"], second["verdict"]) == (None, None, None)
    assert read_records(tmp_path) == (record("001"), record("2", None))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM(1)", "\tx", "\rx", "'x", "'=x"])
def test_no_cell_is_a_formula_and_each_text_is_found_again(text: str, tmp_path: Path) -> None:
    begun(tmp_path, record(text), record(f"a{text}")).close()
    (_, first, second) = rows(tmp_path)
    assert first[0] == f"'{text}"
    assert second[0] == f"a{text}"


def test_a_row_is_on_disk_before_the_next_patient(tmp_path: Path) -> None:
    with closing(begun(tmp_path)) as table:
        for number in range(3):
            table.add(record(f"P{number}"))
            assert len(rows(tmp_path)) == number + 2


def test_a_table_is_replaced_whole(tmp_path: Path) -> None:
    begun(tmp_path, record("earlier")).close()

    def dying() -> Iterator[Record]:
        yield record("later")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Table(tmp_path, "abc").begin(dying())
    assert [row[0] for row in rows(tmp_path)] == ["patient", "earlier"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GradeError, match=r"results cannot be written to .*file.*--out"):
        check_writable(tmp_path / "file")
    with pytest.raises(GradeError, match="results cannot be written"):
        check_writable(tmp_path / "file" / "below")
    check_writable(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_altered_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(GradeError, match="cannot be read"):
        read_records(tmp_path)
    (tmp_path / "predictions.json").write_text('{"patients": [{"patient": 1}]}')
    with pytest.raises(GradeError, match="was altered"):
        read_records(tmp_path)
    (tmp_path / "predictions.json").write_text("[" * 100_000)
    with pytest.raises(GradeError, match="was altered: it is nested too deep"):
        read_records(tmp_path)
