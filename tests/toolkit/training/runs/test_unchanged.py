"""A run is continued on what it began with, by one process; what changed is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.config import Settings
from toolkit.data.cache import CachedScan
from toolkit.data.cohort.split import Split
from toolkit.data.patients import Cohort
from toolkit.errors import CohortError, RunError
from toolkit.training.loop.scans import TrainingData
from toolkit.training.runs.folder import create_run, open_run
from toolkit.training.runs.run import Checkpoint, Run
from toolkit.training.runs.unchanged import check_checkpoint, check_cohort
from toolkit.training.single import train_run

MakeSettings = Callable[..., Settings]
HOLD = """
import sys, time
from pathlib import Path
from toolkit.errors import RunError
from toolkit.files import alone
with alone(Path(sys.argv[1]), RunError("busy")):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def run(tmp_path: Path, training: TrainingData, validation: TrainingData, make_settings: MakeSettings) -> Run:
    split = Split(training.cohort, validation.cohort)
    images = {patient.folder: f"{patient.id}-before" for patient in split.training.patients}
    run = create_run(tmp_path / "runs", "a", make_settings(), split, images)
    run.save_last(Checkpoint([], [], {}, {}, {}, {}))
    return run


def last_of(run: Run) -> Checkpoint:
    last = run.load_last()
    if last is None:
        raise FileNotFoundError(run.folder)
    return last


def test_an_unchanged_run_continues(run: Run) -> None:
    check_checkpoint(open_run(run.folder), last_of(run))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed = 0", "seed = 1", r"training\.seed = 1, which was 0"),
        ("batch_size = 2", "batch_size = 4", r"training\.batch_size = 4, which was 2"),
        ("depth = 10", "depth = 18", r"network\.depth = 18, which was 10"),
        ("rotation = 10.0", "rotation = 5.0", r"training\.augment\.rotation = 5\.0, which was 10\.0"),
        ("\nepochs = 3", "\nepochs = 30", r"training\.epochs = 30, which was 3"),
    ],
)
def test_altered_settings_are_named(run: Run, old: str, new: str, sentence: str) -> None:
    file = run.folder / "settings.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=rf"settings\.toml changed: {sentence}"):
        check_checkpoint(open_run(run.folder), last_of(run))


def test_a_run_begun_before_there_was_a_setting_continues_without_it(run: Run) -> None:
    """Its file and its checkpoint lack the setting, whose default of today would change the training."""
    file = run.folder / "settings.toml"
    earlier = "".join(line for line in file.read_text().splitlines(keepends=True) if "frozen_bn_epoch" not in line)
    file.write_text(earlier)
    opened, last = open_run(run.folder), last_of(run)
    assert (run.settings.training.frozen_bn_epoch, opened.settings.training.frozen_bn_epoch) == (10, 0)
    with pytest.raises(RunError, match=r"training\.frozen_bn_epoch = 0, which was 10"):
        check_checkpoint(opened, last)
    check_checkpoint(opened, replace(last, settings=earlier))


def test_where_it_computes_may_change(run: Run) -> None:
    file = run.folder / "settings.toml"
    file.write_text(file.read_text().replace('device = "cpu"', 'device = "cuda"').replace('"youden"', '"cost=2:1"'))
    check_checkpoint(open_run(run.folder), last_of(run))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("p001,LGG,,training", "p001,LGG,,validation", "p001 had split training and has split validation"),
        ("p001,LGG", "p001,HGG", "p001 had grade LGG and has grade HGG"),
        ("p001,LGG", "q001,LGG", "p001 was removed; q001 was added"),
        ("p001,LGG,,training,/cohort/p001", "p001,LGG,,training,/cohort/p002", "p001 had folder /cohort/p001 and has"),
    ],
)
def test_an_altered_split_is_named(run: Run, old: str, new: str, sentence: str) -> None:
    file = run.folder / "split.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=rf"split\.csv changed: {sentence}"):
        check_checkpoint(open_run(run.folder), last_of(run))


def everyone(run: Run) -> Cohort:
    return run.training_patients().joined(run.validation_patients())


def entries(run: Run, other: Mapping[str, str]) -> dict[Path, CachedScan]:
    names = {patient.folder: patient.id for patient in everyone(run).patients}
    return {f: CachedScan(Path("x"), (4,), other.get(n, f"{n}-before")) for f, n in names.items()}


def test_changed_grades_images_and_patients_are_named(run: Run) -> None:
    now = everyone(run)
    check_cohort(run, now, entries(run, {}))
    with pytest.raises(CohortError, match="began with other patients: the images of p003 changed; restore them"):
        check_cohort(run, now, entries(run, {"p003": "other"}))
    turned = replace(now, grades=(1, *now.grades[1:]))
    with pytest.raises(CohortError, match="the labels of p000 changed from LGG to HGG"):
        check_cohort(run, turned, {})
    fewer = replace(now, patients=now.patients[1:], grades=now.grades[1:], sites=now.sites[1:])
    with pytest.raises(CohortError, match="p000 is no longer there"):
        check_cohort(run, fewer, {})
    every_one = replace(now, grades=tuple(1 - grade for grade in now.grades))
    with pytest.raises(CohortError, match="; and 14 more; restore"):
        check_cohort(run, every_one, {})


def test_two_processes_do_not_train_one_run(run: Run, recorder: Callable[[], object]) -> None:
    command = [sys.executable, "-c", HOLD, str(run.folder / ".lock")]
    scans = {patient.folder: None for patient in everyone(run).patients}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="is being trained by another process"):
            train_run(run, scans, recorder())  # type: ignore[arg-type]
        holder.kill()
    with run.alone():  # the lock went with its process
        assert (run.folder / ".lock").exists()
    assert not (run.folder / ".lock").exists()
