"""Every mistake ends with one sentence on standard error and exit code 1, never with a traceback."""

import shutil
from pathlib import Path

import pytest

from cli.listing import COMMANDS
from tests.cli.conftest import SETTINGS, write_patient


def refused(answer, *words):
    code, _, err = answer
    assert code == 1, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.strip()]
    assert lines[-1].startswith("error: ")
    for word in words:
        assert word in lines[-1]


def test_unknown_settings_key(project, grade):
    (project / "grade.toml").write_text(SETTINGS.replace("epochs = 2", "epoch = 2", 1))
    refused(grade("train"), "unknown setting 'training.epoch'", "grade.toml")


def test_no_cohort_named(tmp_path, monkeypatch, grade):
    monkeypatch.chdir(tmp_path)
    refused(grade("train"), "no cohort is named")


def test_missing_settings_file(tmp_path, monkeypatch, grade):
    monkeypatch.chdir(tmp_path)
    refused(grade("train", "--config", "other.toml"), "there is no settings file other.toml")


def test_missing_cohort(project, grade):
    shutil.rmtree(project / "cohort")
    refused(grade("train"), "cohort does not exist")


def test_empty_cohort(project, grade):
    shutil.rmtree(project / "cohort")
    (project / "cohort").mkdir()
    refused(grade("train"), "no patient below")


def test_one_class_only(project, grade):
    shutil.rmtree(project / "cohort" / "LGG")
    refused(grade("train"), "all 6 patients", "LGG is needed too")


def test_unreadable_patient_is_named_before_training(project, grade):
    (project / "cohort" / "LGG" / "p00" / "p00_t1.nii.gz").write_bytes(b"")
    refused(grade("train"), "p00", "is empty (0 bytes)")
    assert not (project / "runs").exists()


def test_stacked_balancing(project, grade):
    refused(grade("train", "--set", "training.loss=ldam"), "balancing mechanisms", "--allow-conflicts")


def test_unknown_strategy(project, grade):
    code, _, err = grade("train", "--strategy", "fast")
    assert code == 2
    assert "'fast' is not one of 'stable'" in err


def test_cuda_without_one(project, grade):
    refused(grade("train", "--set", "training.device=cuda:7"), "cuda:7")


def test_resume_without_a_run(project, grade):
    refused(grade("train", "--resume"), "there is no run")


@pytest.mark.parametrize(
    "given",
    [
        ("--set", "training.epochs=4"),
        ("--strategy", "legacy"),
        ("--config", "grade.toml"),
        ("--folds", "3"),
        ("--allow-conflicts",),
    ],
)
def test_what_a_resumed_run_has_decided_is_not_asked_for(grade, given):
    code, _, err = grade("train", "--resume", *given)
    assert code == 2
    assert f"{given[0]} has no effect with --resume" in " ".join(err.replace("│", " ").split())


def test_corrupt_checkpoint(project, grade):
    assert grade("train", "--name", "short", "--set", "training.epochs=1")[0] == 0
    for name in ("last.pt", "best.safetensors"):
        file = project / "runs" / "short" / name
        kept = file.read_bytes()
        file.write_bytes(kept[: len(kept) // 2])
        refused(grade("train", "--resume", "--name", "short"), name)
        file.write_bytes(kept)
    (project / "runs" / "short" / "best.safetensors").write_bytes(b"nonsense")
    refused(grade("export", "runs/short"), "best.safetensors")
    assert not (project / "model").exists()


def test_no_model(project, grade):
    refused(grade("predict", "cohort"), "model")


def test_patient_that_is_not_there(project, grade):
    refused(grade("predict", "nobody"), "nobody does not exist")


def test_read_only_output(project, grade):
    (project / "occupied").touch()
    refused(grade("phantom", "occupied/out", "--patients", "1"), "occupied")
    refused(grade("train", "--runs", "occupied/runs"), "occupied")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trt-flavour", "tensorrt"), ("TensorRT is not installed", "pip install -c constraints.txt")),
        (("--compute-capability", "9.0"), ("compute capability 9.0 was named", "8.6, 8.9, 12.0")),
        (("--opt-batch", "9"), ("export.opt_batch = 9", "at most max_batch = 8")),
    ],
)
def test_engines_that_cannot_be_built_are_refused_before_anything_is_written(project, grade, options, words):
    assert grade("train", "--name", "short", "--set", "training.epochs=1")[0] == 0
    refused(grade("export", "--trt", *options), *words)
    assert not (project / "model").exists()
    assert not list(project.glob(".model*"))


def test_wrong_usage_is_exit_code_2(grade):
    assert grade("predict")[0] == 2
    assert grade("train", "--no-such-option")[0] == 2
    assert grade("export", "--trt", "--trt-flavour", "lean")[0] == 2


def test_dry_run_reads_nothing_and_needs_no_model(tmp_path, monkeypatch, grade):
    monkeypatch.chdir(tmp_path)
    write_patient(tmp_path / "some" / "q1", 0, bright=True)
    (tmp_path / "some" / "q2").mkdir()
    (tmp_path / "some" / "q2" / "q2_t1.nii.gz").touch()
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("a file was read"))
    code, out, _ = grade("predict", "some", "--dry-run")
    assert code == 3
    assert "q1_t1ce.nii.gz" in out
    assert "missing" in out
    assert not (tmp_path / "results").exists()


def test_every_command_has_help(grade):
    for name, entry in COMMANDS.items():
        code, out, _ = grade(name, "--help")
        assert code == 0
        assert entry.help.split()[0] in out
