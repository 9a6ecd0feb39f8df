"""Words of the command line: what is refused before anything is read, and what is printed for other programs."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.console import table
from cli.listing import COMMANDS
from cli.main import app


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "x", "--runtime", "tensort"),
        ("predict", "x", "--device", "gpu"),
        ("predict", "x", "--cluster", "here"),
        ("evaluate", "m", "x", "--runtime", "cuda"),
        ("train", "--strategy", "fast"),
        ("train", "--device", "cuda:x"),
        ("train", "--resume", "--folds", "2"),
        ("calibrate", "--method", "isotonic"),
        ("calibrate", "--rule", "cost=1"),
        ("compare", "x", "--strategies", "stable,fast"),
        ("compare", "x", "--ablate", "magic"),
        ("export", "--trt-flavour", "fast"),
        ("export", "--member", "worst"),
        ("export", "--compute-capability", "sm90"),
        ("bench", "--runtime", "auto"),
        ("--quiet", "--verbose", "info"),
    ],
)
def test_a_wrong_word_is_wrong_usage(words, grade):
    code, out, err = grade(*words)
    assert code == 2, err
    assert not out
    assert "Traceback" not in err


def test_every_command_has_examples_that_name_real_options(grade):
    for name in COMMANDS.keys() - {"pacs"}:
        examples = import_module(f"cli.commands.{name}").EXAMPLES
        code, out, _ = grade(name, "-h")
        assert code == 0
        assert "Examples:" in out
        for example in examples:
            assert name in example.split()
            for word in example.split():
                if word.startswith("--") and word != "--no-phi":
                    assert word in out, f"{example}: no option {word}"


def test_words_are_not_broken_in_a_narrow_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "BraTS20_Training_001_with_a_long_name"
    table("Patients", ("patient", "remarks"), [(name, "refused because its file is truncated: 4 bytes"), ("b", name)])
    shown = capsys.readouterr().out
    assert shown.split().count(name) == 2
    assert "truncated:" in shown.split()


def test_a_dry_run_reads_nothing_and_says_what_it_would_be(project, grade):
    code, out, err = grade("train", "--dry-run", "--json", "--strategy", "legacy")
    facts = json.loads(out)
    assert code == 0
    assert facts["training"] + facts["validation"] == facts["patients"] == 12
    assert facts["conflicts"]
    assert "balancing mechanisms" in err
    assert facts["disk_bytes"] > 12 * 4 * 16**3 * 4
    code, out, _ = grade("train", "--dry-run", "--name", "first", "--folds", "2")
    assert code == 0
    assert "runs/first" in out
    assert not (project / "runs").exists()
    assert not (project / "cache").exists()


def test_refused_before_the_cohort_is_read(project, grade):
    (project / "runs" / "there").mkdir(parents=True)
    for words, sentence in (
        (("--device", "cuda:9"), "device cuda:9 is not there"),
        (("--name", "there"), "exists"),
        (("--pretrained", "absent.pth"), "absent.pth"),
    ):
        code, _, err = grade("train", *words)
        assert code == 1
        assert sentence in err
        assert "read and preprocessed" not in err
    assert not (project / "cache").exists()


def test_a_first_settings_file(project, grade):
    code, _, err = grade("init")
    assert code == 1
    assert "grade.toml exists" in err
    (project / "grade.toml").unlink()
    assert grade("init", "--cohort", "cohort")[0] == 0
    text = (project / "grade.toml").read_text()
    assert '\ncohort = "cohort"' in text
    assert "# epochs = 40" in text
    code, out, err = grade("train", "--dry-run")
    assert code == 0, err
    assert "12 (6 LGG, 6 HGG)" in out
    # Every line that is commented out is a valid setting.
    (project / "grade.toml").write_text(re.sub(r"\n# (?=\w+ = )", "\n", text))
    assert grade("train", "--dry-run", "--allow-conflicts")[0] == 0


def test_a_log_names_nobody(project, grade):
    code, _, err = grade("--log-file", "log.txt", "--quiet", "check", "cohort")
    assert code == 0
    assert "can be graded" not in err
    log = (project / "log.txt").read_text()
    assert log.splitlines()[0].endswith(f"begin: grade check, version {version('glioma-grade')}")
    assert "12 can be graded" in log
    assert "p00" not in log


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("train", "--set", "training.device=x"), 1, "training.device"),
        (("train", "--name", ".hidden"), 1, "cannot name a run"),
        (("report", "runs/tiny"), 0, "runs/tiny/report.html"),
    ],
)
def test_what_needs_no_network_does_not_wait_for_torch(words, code, said, made, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
    places = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "cli", *words],
        cwd=made,
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a copy of the source that nobody installed, which was a traceback."""
    shown = [CliRunner().invoke(app, ["--version"])]

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    shown.append(CliRunner().invoke(app, ["--version"]))
    assert [one.output for one in shown] == [f"{version('glioma-grade')}\n", "not installed: run from its source\n"]
