"""`grade --no-phi`: whatever a command prints, no word of it names a patient."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.gate import program, public

ID, NUMBER = "Doe_Jane", "83107451"
PLANTED = ("Doe", "Jane", "Roe", "Rick", "Ödön", "ses-83", NUMBER, "St_Elsewhere")


@pytest.fixture(scope="module")
def planted(made, tmp_path_factory):
    """Patients, a table, settings, a run and a model whose names would tell who somebody is."""
    home = tmp_path_factory.mktemp("St_Elsewhere")
    for number, patient in enumerate(sorted((made / "cohort").glob("*/p*"))):
        folder = home / "Roe_cohort" / patient.parent.name / f"{ID}{number}" / "ses-83"
        shutil.copytree(patient, folder)
    shutil.copytree(folder, home / "Roe_cohort" / "LGG" / "Rick Ödön")
    shutil.copytree(folder, home / "Roe_cohort" / "HGG" / NUMBER)
    (home / "Roe_cohort" / "HGG" / NUMBER / "p01_t1.nii.gz").write_bytes(b"Jane")
    rows = "".join(f"{ID}{number},{'LGG' if number % 2 else 'HGG'},St_Elsewhere\n" for number in range(4))
    (home / "Jane.csv").write_text(f"patient,grade,site\n{rows}{NUMBER},Doe,x\n")
    (home / "grade.toml").write_text((made / "grade.toml").read_text().replace('"cohort"', '"Roe_cohort"'))
    (home / "Jane.toml").write_text('[data]\nDoe_Jane = "Rick"\n')
    shutil.copytree(made / "runs" / "tiny", home / "runs" / "Jane", symlinks=True)
    shutil.copytree(made / "model", home / "Jane_model")
    return home


def commands(home):
    """Command lines of every command, right ones and wrong ones."""
    cohort, model = home / "Roe_cohort", ("--model", "Jane_model")
    two = [cohort / "HGG" / f"{ID}{number}" for number in (0, 1)]
    return {
        "predict": ("predict", cohort, *model, "--out", "Jane_results"),
        "predict twice": ("predict", cohort / "HGG", *model, "--out", "Jane_results"),
        "predict of two sessions": ("predict", *two, *model, "--dry-run"),
        "predict of nobody": ("predict", ID, *model),
        "predict without a model": ("predict", cohort, "--model", "Rick Ödön"),
        "a word that is no number": ("predict", cohort, "--batch-size", ID),
        "a word that is no option": ("predict", cohort, f"--{ID}"),
        "a word that is no command": (ID, cohort),
        "check": ("check", cohort),
        "check as JSON": ("check", cohort, "--json"),
        "check a table": ("check", "Jane.csv"),
        "check with a table": ("check", cohort, "--labels", "Jane.csv", "--site-column", "Doe"),
        "evaluate": ("evaluate", "Jane_model", cohort, "--out", "Jane_evaluation"),
        "train": ("train", "--name", ID, "--set", "training.epochs=1"),
        "train with a wrong setting": ("train", "--config", "Jane.toml"),
        "train with a wrong value": ("train", "--set", f"training.device={ID}"),
        "report": ("report", "runs/Jane"),
        "calibrate": ("calibrate", "runs/Jane", "--rule", ID),
        "export": ("export", "runs/Jane", "--out", "Doe_model"),
        "compare": ("compare", cohort, "--strategies", ID),
        "phantom": ("phantom", "Jane_phantom", "--patients", "1", "--spacing", "4"),
        "demo": ("demo", "--out", cohort),
        "bench": ("bench", cohort / "HGG" / NUMBER, *model, "--batch-size", "1"),
        "info": ("info", *model, "--json"),
        "sign": ("sign", "Doe.pem", *model),
        "verify": ("verify", "Jane_model"),
        "verify an audit": ("verify", "--audit", "Jane.csv"),
    }


NAMES = tuple(commands(Path()))
STARTED = ("predict", "check", "a word that is no option")  # as a user starts them; the others are forked from here


@pytest.mark.parametrize("name", NAMES)
def test_no_command_names_a_patient(name, planted, request, monkeypatch, grade):
    monkeypatch.chdir(planted)
    if name not in STARTED:
        request.getfixturevalue("forked_gate")
    code, out, err = grade("--no-phi", "--verbose", "--log-file", "log.txt", *commands(planted)[name])
    log = planted / "log.txt"
    logged = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    assert out + err
    for text in (out, err, logged):
        found = [word for word in PLANTED if word in text]
        assert not found, text
    if "--json" in commands(planted)[name]:
        json.loads(out)
    assert code in (0, 1, 2, 3)
    assert code == 2 or logged


def test_a_position_after_the_command_hides_too(planted, grade, forked_gate):
    code, out, err = grade("check", planted / "Roe_cohort", "--no-phi")
    assert code == 3
    assert "Jane" not in out + err
    assert "patient 1" in out


def test_a_program_that_breaks_says_where_and_not_what(tmp_path):
    script = (
        "import os, sys, warnings\nimport cli.main\nfrom cli import gate\nfrom cli.commands import train\n"
        "def broken(): os.write(2, b'Doe_Jane in C\\n'); warnings.warn('Doe_Jane'); raise ValueError('Doe^Jane')\n"
        "if sys.argv[1:] == ['inner']:\n"
        "    train.command = broken\n"
        "    sys.argv = ['grade', '--no-phi', 'train']\n    cli.main.run()\n"
        "gate.program = lambda words: [sys.executable, __file__, 'inner']\n"
        "sys.exit(gate.run_behind(['--no-phi', 'train']))\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ValueError" in done.stderr
    assert "in C" not in done.stderr
    assert "Jane" not in done.stdout + done.stderr


def test_what_is_public():
    assert public("12 of 40 patients, AUC 0.863, training.epochs=20, epoch 3/40, 104x128x104") == (
        "12 of 40 patients, AUC 0.863, training.epochs=20, epoch 3/40, 104x128x104"
    )
    assert public("Doe_Jane's t1 is empty.") == public(public("Doe_Jane's t1 is empty."))
    for private in (
        "1956-03-12",
        "19560312",
        "1.2.840.113619.2",
        "/results/patients/45",
        "a\x1b[31m",
        "patient-45",
        "O\\u00e9",
    ):
        assert "<hidden" in public(f"{private} is empty")
    assert json.loads(public(json.dumps({"patient": 'the "Doe" \\', "reason": "x\n"})))


def test_ctrl_c_passes_through(planted):
    words = ["--no-phi", "predict", planted / "Roe_cohort", "--model", planted / "Jane_model", "--out", planted / "o"]
    words += ["--report"]  # seconds of work after the first line
    process = subprocess.Popen(
        program([*map(str, words)]), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    process.stderr.readline()  # before that Python itself may answer
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted:")
    assert "Traceback" not in err
