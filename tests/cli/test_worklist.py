"""The worklist of `grade pull`, as spreadsheets save it."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from cli.screens import pacs
from toolkit.config.service import ServiceSettings
from toolkit.errors import CohortError


@pytest.mark.parametrize(
    "content",
    [
        b"study,note\n1.2.3,a\n\n1.2.4,\n",
        b"\xef\xbb\xbfNote;Study\r\na;1.2.3\r\nb;1.2.4\r\n",
        "note\tSTUDY\na\t1.2.3\nb\t 1.2.4\n".encode("utf-16"),
    ],
)
def test_studies_of_a_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    assert pacs.studies_of(tmp_path / "list.csv", ServiceSettings(), "PACS", False) == ["1.2.3", "1.2.4"]


def test_studies_of_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["Study"], ["1.2.3"], ["1.2.4"]):
        book.active.append(row)
    book.save(tmp_path / "list.xlsx")
    assert pacs.studies_of(tmp_path / "list.xlsx", ServiceSettings(), "PACS", False) == ["1.2.3", "1.2.4"]


@pytest.mark.parametrize(
    ("content", "said"),
    [("who\nx\n", "has none of the columns study, accession, patient"), ("", "is empty"), (None, "there is no table")],
)
def test_a_table_that_names_no_study(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "list.csv").write_text(content)
    with pytest.raises(CohortError, match=said):
        pacs.studies_of(tmp_path / "list.csv", ServiceSettings(), "PACS", False)


@pytest.mark.parametrize("date", ["2026-01-01", "1.1.2026", "20260101-2026", "today"])
def test_what_is_no_date_is_not_asked_for(grade, date: str) -> None:  # type: ignore[no-untyped-def]
    code, _, said = grade("pacs", "find", "PACS", "--date", date)
    assert code == 2
    assert "is no date; write 20260131" in " ".join(said.split())
