"""A training as an MLflow run, where the settings ask for it: settings as parameters, each epoch's figures as metrics.

MLflow's own telemetry is turned off before it is loaded, and only its client is used: the fluent interface would note
the user's name and the git commit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from toolkit.config import Settings
from toolkit.errors import Interrupted, RunError
from toolkit.training.runs.run import EpochRow, Run

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "grade"
MARK = "mlflow.txt"  # in the run folder: id of the MLflow run, so that a resumed training continues it
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # the only store that needs neither a database nor a server
}


@contextmanager
def tracked(run: Run, wanted: bool) -> Iterator[Callable[[EpochRow], None]]:
    """A function that adds an epoch to the MLflow run; it does nothing where none is wanted.

    Args:
        run: its name becomes the MLflow run's; the id is kept in it.
        wanted: whether this process is the one that tracks.

    Raises:
        RunError: MLflow is not installed, or its store cannot be written.
    """
    if not wanted or run.settings.training.tracker == "none":
        yield lambda row: None
        return
    make, failure = _library()
    try:
        client = make(_store(run))
        number, known = _begin(client, run)
    except (failure, OSError) as error:
        raise RunError(f"MLflow cannot write to {_store(run)}: {error}; name another with tracker_uri.") from error

    def add(row: EpochRow) -> None:
        if row.epoch in known:
            return  # a training that was cut off repeats the epoch, with the same figures
        try:
            for name, value in row.model_dump(exclude={"epoch"}, exclude_none=True).items():
                client.log_metric(number, name, float(value), step=row.epoch)
        except (failure, OSError) as error:
            raise RunError(f"MLflow cannot write to {_store(run)}: {error}; see to the store, and resume.") from error

    status = "FAILED"
    try:
        yield add
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        client.set_terminated(number, status)


def _library() -> tuple[type[MlflowClient], type[Exception]]:
    """MLflow's client and its errors, loaded here alone.

    Raises:
        RunError: it is not installed.
    """
    if find_spec("mlflow") is None:
        raise RunError("training.tracker = 'mlflow', but MLflow is not installed; pip install 'glioma-grade[mlflow]'.")
    os.environ.update(_ENVIRONMENT)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    return MlflowClient, MlflowException


def _store(run: Run) -> str:
    """The store that the settings name; else `mlruns` next to the run."""
    return run.settings.training.tracker_uri or (run.folder.absolute().parent / "mlruns").as_uri()


def _begin(client: MlflowClient, run: Run) -> tuple[str, set[int]]:
    """Id of the MLflow run, and the epochs that it has."""
    mark = run.folder / MARK
    if mark.is_file():
        number = mark.read_text(encoding="utf-8").strip()
        client.update_run(number, status="RUNNING")
        return number, {metric.step for metric in client.get_metric_history(number, "train_loss")}
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    number = str(client.create_run(experiment, run_name=run.folder.name).info.run_id)
    for name, value in _parameters(run.settings).items():
        client.log_param(number, name, value)
    run.write(MARK, number + "\n")
    return number, set()


def _parameters(settings: Settings) -> dict[str, Any]:
    """What shaped the training; no path, for it may name a person or a place."""
    tree = settings.model_dump(mode="json", include={"strategy", "network", "training", "calibration"})
    tree["data"] = settings.data.model_dump(mode="json", include={"spacing", "shape", "group", "folds"})
    return {key: value for key, value in _flat(tree, "") if key not in ("network.pretrained", "training.tracker_uri")}


def _flat(tree: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value
