"""A training as an MLflow run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from toolkit.errors import RunError
from toolkit.training.loop import tracker
from toolkit.training.loop.scans import TrainingData
from toolkit.training.loop.train import train
from toolkit.training.runs.run import Run

pytestmark = pytest.mark.usefixtures("narrow", "short_report")


def kill_in_epoch(number: int) -> Callable[[int, int], None]:
    def act(epoch: int, step: int) -> None:
        if epoch == number:
            raise KeyboardInterrupt

    return act


def test_every_epoch_is_a_step_and_a_resumed_training_continues_the_run(
    new_run: Callable[..., Run],
    recorder: Callable[..., Any],
    training: TrainingData,
    validation: TrainingData,
) -> None:
    run = new_run("training.epochs=3", "training.tracker=mlflow", "training.early_stopping=9")
    with pytest.raises(KeyboardInterrupt):
        train(run, training, validation, recorder(kill_in_epoch(2)))
    make, _ = tracker._library()
    client = make(tracker._store(run))
    number = (run.folder / tracker.MARK).read_text().strip()
    assert client.get_run(number).info.status == "KILLED"
    train(run, training, validation, recorder())
    found = client.get_run(number)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    losses = sorted((metric.step, metric.value) for metric in client.get_metric_history(number, "val_loss"))
    assert losses == [(row.epoch, pytest.approx(row.val_loss)) for row in run.history()]
    assert found.data.params["training.epochs"] == "3"
    assert found.data.params["network.depth"] == str(run.settings.network.depth)
    assert not [key for key in found.data.params if "cohort" in key or "cache" in key]
    assert "mlflow.user" not in found.data.tags
    (store,) = (run.folder.parent / "mlruns").glob("*/" + number)
    assert (store / "metrics" / "val_auc").is_file()


def test_without_mlflow_nothing_is_trained(
    new_run: Callable[..., Run],
    recorder: Callable[..., Any],
    training: TrainingData,
    validation: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    run = new_run("training.epochs=1", "training.tracker=mlflow")
    with pytest.raises(RunError, match=r"pip install 'glioma-grade\[mlflow\]'"):
        train(run, training, validation, recorder())
    assert not (run.folder / "history.csv").exists()


def test_a_store_that_cannot_be_written_is_one_sentence(
    new_run: Callable[..., Run], recorder: Callable[..., Any], training: TrainingData, validation: TrainingData
) -> None:
    run = new_run("training.epochs=1", "training.tracker=mlflow", "training.tracker_uri=file:///proc/nowhere")
    with pytest.raises(RunError, match="MLflow cannot write to file:///proc/nowhere"):
        train(run, training, validation, recorder())
