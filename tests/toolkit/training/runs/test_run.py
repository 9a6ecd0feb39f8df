from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.config import Settings
from toolkit.data.cohort.split import Split
from toolkit.data.patients import Cohort, Patient
from toolkit.errors import RunError, SettingsError
from toolkit.training.loop.scans import TrainingData
from toolkit.training.runs.folder import create_run, new_folder, open_run, point_latest
from toolkit.training.runs.outcome import write_outcome
from toolkit.training.runs.run import Checkpoint, EpochRow, Run, ValidationTable

RunMaker = Callable[..., Run]
pytestmark = pytest.mark.usefixtures("narrow", "short_report")

ROWS = [
    EpochRow(
        epoch=1,
        train_loss=0.1 + 0.2,
        train_auc=1 / 3,
        val_loss=0.7,
        val_auc=None,
        lr=1e-4 / 3,
        head_lr=2e-4,
        seconds=1.5,
        images_per_second=6.0,
    ),
    EpochRow(
        epoch=2,
        train_loss=0.2,
        train_auc=0.0,
        val_loss=0.6,
        val_auc=0.9,
        lr=1e-4,
        head_lr=2e-4,
        seconds=1.5,
        images_per_second=6.0,
    ),
]

STEPS = [[0.1 + 0.2, 1 / 3], [float("nan"), 0.2]]


def table(count: int = 12, seed: int = 0) -> ValidationTable:
    rng = np.random.default_rng(seed)
    grades = np.arange(count) % 2
    logits = rng.normal(0, 1, (count, 2))
    logits[:, 1] += grades
    return ValidationTable(tuple(f"é, {i}" for i in range(count)), grades, logits)


def finished(run: Run) -> Run:
    run.write_history(ROWS)
    run.write_steps(STEPS)
    run.write("environment.json", '{"python": "3.11"}\n')
    run.save_best(run.build_network())
    write_outcome(run, table())
    return run


def test_new_run_on_disk(new_run: RunMaker, training: TrainingData, validation: TrainingData) -> None:
    run = new_run("training.seed=7")
    assert sorted(p.name for p in run.folder.iterdir()) == ["labels.txt", "settings.toml", "split.csv"]
    assert (run.folder / "split.csv").read_text().splitlines()[:2] == [
        "patient,grade,site,split,folder,images",
        "p000,LGG,,training,/cohort/p000,",
    ]
    opened = open_run(run.folder)
    assert opened == run
    assert opened.settings.training.seed == 7
    assert opened.training_patients() == training.cohort
    assert opened.validation_patients() == validation.cohort


@pytest.mark.parametrize("strategy", ["stable", "ldam", "legacy"])
def test_settings_come_back(new_run: RunMaker, strategy: str) -> None:
    run = new_run(strategy=strategy)
    assert open_run(run.folder).settings == run.settings


def test_latest_is_a_relative_link_that_moves_on(new_run: RunMaker) -> None:
    first = new_run(name="first")
    link = first.folder.parent / "latest"
    assert link.readlink() == Path("first")
    second = new_run(name="second")
    assert link.readlink() == Path("second")
    assert open_run(link).folder == second.folder  # resolved: a later run does not change which one it is
    point_latest(first)
    assert link.readlink() == Path("first")
    assert sorted(p.name for p in link.parent.iterdir()) == ["first", "latest", "second"]


def test_latest_taken_by_a_file(new_run: RunMaker, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").write_text("mine")
    with pytest.raises(RunError, match="latest cannot be pointed at run: it is no link"):
        new_run()
    assert (tmp_path / "runs" / "latest").read_text() == "mine"


def test_latest_taken_by_a_folder(new_run: RunMaker, tmp_path: Path) -> None:
    (tmp_path / "runs" / "latest").mkdir(parents=True)
    with pytest.raises(RunError, match="latest cannot be pointed at run"):
        new_run()


def test_name_taken(new_run: RunMaker) -> None:
    new_run()
    with pytest.raises(RunError, match=r"run exists; .*--resume"):
        new_run()


@pytest.mark.parametrize("name", ["latest", "a/b", "..", ".hidden", ""])
def test_no_name_for_a_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot name a run"):
        new_folder(tmp_path, name, Settings())


def test_a_run_without_a_name_takes_a_free_one(tmp_path: Path) -> None:
    for _ in range(3):  # within a second, as several starts at once
        new_folder(tmp_path, None, Settings()).mkdir()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert all("stable" in name for name in names)


def test_runs_folder_is_a_file(tmp_path: Path, new_run: RunMaker) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        new_run()


def test_history_comes_back_bit_for_bit(new_run: RunMaker) -> None:
    run = new_run()
    run.write_history(ROWS)
    assert run.history() == ROWS
    run.write_history(ROWS)
    assert len((run.folder / "history.csv").read_text().splitlines()) == 3


def test_validation_comes_back_bit_for_bit(new_run: RunMaker) -> None:
    run, written = new_run(), table()
    run.write_validation(written)
    read = run.validation()
    assert read.patients == written.patients
    np.testing.assert_array_equal(read.grades, written.grades)
    np.testing.assert_array_equal(read.logits, written.logits)
    np.testing.assert_array_equal(read.logit, written.logits[:, 1] - written.logits[:, 0])


def test_best_network_comes_back(new_run: RunMaker) -> None:
    run = new_run(strategy="ldam")
    network = run.build_network().eval().to(memory_format=torch.channels_last_3d)
    run.save_best(network)
    loaded = run.load_best()
    assert not loaded.training
    scan = torch.randn(1, 4, 16, 16, 16)
    torch.testing.assert_close(loaded(scan).logits, network(scan).logits)
    assert loaded.head.scale == 12


def test_checkpoint_comes_back(new_run: RunMaker) -> None:
    run = new_run()
    assert run.load_last() is None
    network = run.build_network()
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 4, 16, 16, 16)).logits.sum().backward()
    optimizer.step()
    run.save_last(Checkpoint(ROWS, STEPS, network.state_dict(), {}, optimizer.state_dict(), {}))
    last = run.load_last()
    assert last is not None
    assert last.history == run.history() == ROWS
    assert last.steps[0] == run.step_losses()[:2] == [0.1 + 0.2, 1 / 3]
    assert math.isnan(run.step_losses()[2])
    assert run.step_losses()[3] == 0.2
    assert all(torch.equal(x, network.state_dict()[name]) for name, x in last.network.items())
    assert last.optimizer["param_groups"] == optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize(
    "read, name",
    [
        (Run.history, "history.csv"),
        (Run.validation, "validation.csv"),
        (Run.calibration, "calibration.json"),
        (Run.load_best, "best.safetensors"),
        (Run.environment, "environment.json"),
        (Run.training_patients, "split.csv"),
    ],
)
def test_missing_file_is_named(new_run: RunMaker, read: Callable[[Run], Any], name: str) -> None:
    run = finished(new_run())
    read(run)
    (run.folder / name).unlink()
    with pytest.raises(RunError, match=f"has no {name}"):
        read(run)


@pytest.mark.parametrize(
    "read, name, content, sentence",
    [
        (Run.history, "history.csv", b"epoch,train_loss\n1,2\n", "lacks the column"),
        (Run.history, "history.csv", b"\xff\xfe\x00", "cannot be read"),
        (Run.validation, "validation.csv", b"patient,grade,logit_lgg,logit_hgg\na,LGG,1\n", "line 2 is cut short"),
        (Run.validation, "validation.csv", b"patient,grade,logit_lgg,logit_hgg\na,LGG,1,x\n", "is broken"),
        (Run.validation, "validation.csv", b"patient,grade,logit_lgg,logit_hgg\na,IV,1,2\n", "grade 'IV'"),
        (Run.calibration, "calibration.json", b"{", "is broken"),
        (Run.calibration, "calibration.json", b'{"a": 1}', "is broken"),
        (Run.environment, "environment.json", b"[1]", "is broken"),
        (Run.environment, "environment.json", b"[" * 100_000, "is broken: it is nested too deep"),
        (Run.split_text, "split.csv", b"\xff", "is broken"),
        (Run.labels, "labels.txt", b"\xff", "is broken"),
        (Run.load_best, "best.safetensors", b"\x08\x00", "cannot be loaded"),
        (Run.load_last, "last.pt", b"", "cannot be read"),
        (Run.load_last, "last.pt", b"PK\x03\x04 and no more", "cannot be read"),
        (Run.load_last, "last.pt", b"text", "cannot be read"),
    ],
)
def test_corrupt_file_is_named(
    new_run: RunMaker, read: Callable[[Run], Any], name: str, content: bytes, sentence: str
) -> None:
    run = finished(new_run())
    (run.folder / name).write_bytes(content)
    with pytest.raises(RunError, match=sentence) as caught:
        read(run)
    assert name in str(caught.value)


def test_history_with_a_word_for_a_number(new_run: RunMaker) -> None:
    run = finished(new_run())
    file = run.folder / "history.csv"
    file.write_text(file.read_text().replace("0.7", "low"))
    with pytest.raises(RunError, match="val_loss"):
        run.history()


def test_truncated_checkpoint(new_run: RunMaker) -> None:
    run = new_run()
    run.save_last(Checkpoint(ROWS, STEPS, run.build_network().state_dict(), {}, {}, {}))
    file = run.folder / "last.pt"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(RunError, match=r"last\.pt cannot be read: .*delete it"):
        run.load_last()


def test_checkpoint_is_read_without_running_code(new_run: RunMaker) -> None:
    run = new_run()
    torch.save({"history": Path("/")}, run.folder / "last.pt")  # a class that weights_only refuses
    with pytest.raises(RunError, match="cannot be read"):
        run.load_last()


def test_weights_of_another_depth(new_run: RunMaker) -> None:
    run, other = new_run(), new_run("network.depth=18", name="other")
    other.save_best(other.build_network())
    (run.folder / "best.safetensors").write_bytes((other.folder / "best.safetensors").read_bytes())
    with pytest.raises(RunError, match="cannot be loaded"):
        run.load_best()


def test_failed_write_leaves_the_old_file(new_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run()
    run.write("note.txt", "old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="No space left"):
        run.write("note.txt", "new")
    assert (run.folder / "note.txt").read_text() == "old"
    assert not (run.folder / ".note.txt.tmp").exists()


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="has no settings"):
        open_run(tmp_path)
    (tmp_path / "settings.toml").write_text("colour = 1")
    with pytest.raises(SettingsError, match="colour"):
        open_run(tmp_path)


def test_patient_folders_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_run: RunMaker) -> None:
    monkeypatch.chdir(tmp_path)
    cohort = Cohort((Patient("a", Path("data/a")),), (1,))
    run = create_run(Path("runs"), "relative", new_run().settings, Split(cohort, cohort))
    assert run.folder == tmp_path / "runs" / "relative"
    assert run.training_patients().patients[0].folder == tmp_path / "data" / "a"
