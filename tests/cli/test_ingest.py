"""`grade ingest --dry-run` as the README writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.deploy.hospital.heads import head
from tests.deploy.hospital.writer import LOOKS, Paper, write_study
from toolkit.errors import CohortError, SettingsError

GE = LOOKS["ge"]
SMALL = {name: head(name, (16, 18, 13), (9, 9, 9)) for name in GE}


def ingest(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["ingest", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_whole_study(tmp_path: Path) -> None:
    code, table, said = ingest(write_study(tmp_path / "study", SMALL), "--dry-run")
    assert code == 0
    assert "AX T1 POST" in table
    assert "chosen as t1ce" in table
    assert "four series recognised." in said


def test_json_says_which_series_and_why(tmp_path: Path) -> None:
    code, text, _ = ingest(write_study(tmp_path / "study", SMALL), "--dry-run", "--json", "--series", "t1ce=8")
    (study,) = json.loads(text)["studies"]
    assert code == 0
    assert study["chosen"] == {"flair": "3", "t1": "4", "t2": "5", "t1ce": "8"}
    assert [row["reason"] for row in study["series"] if row["number"] == 8] == ["named by --series"]
    assert "TEST^GLIOMA" not in text


def test_some_studies_refused(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "a", SMALL, paper=Paper(seed="a"))
    missing = {name: volume for name, volume in SMALL.items() if name != "t2"}
    write_study(tmp_path / "in" / "b", missing, paper=Paper(seed="b"))
    code, _, said = ingest(tmp_path / "in", "--dry-run")
    assert code == 3
    assert "refused: t2 missing: no series is of this kind." in said
    assert ingest(tmp_path / "in" / "b", "--dry-run")[0] == 1
    with pytest.raises(CohortError, match="there are 2; name one study's folder"):
        ingest(tmp_path / "in", "--dry-run", "--series", "t1ce=8")


@pytest.mark.parametrize("word", ["t1ce", "t9=8", "t1ce="])
def test_a_choice_written_wrong(tmp_path: Path, word: str) -> None:
    with pytest.raises(SettingsError, match=r"write modality=NUMBER or modality=UID"):
        ingest(write_study(tmp_path / "study", SMALL), "--dry-run", "--series", word)


def test_a_sites_names_from_its_settings(tmp_path: Path) -> None:
    (tmp_path / "grade.toml").write_text('[hospital.series]\nt1ce = ["^AX T1$"]\nt1 = ["POST"]\n')
    code, text, _ = ingest(write_study(tmp_path / "study", SMALL), "--dry-run", "--json")
    assert code == 1  # the names contradict the contrast agent
    assert "but the header names the agent GADAVIST" in json.loads(text)["studies"][0]["refused"]
    (tmp_path / "grade.toml").write_text('[hospital.series]\nt1ce = ["("]\n')
    with pytest.raises(SettingsError, match="no regular expression"):
        ingest(tmp_path / "study", "--dry-run")
