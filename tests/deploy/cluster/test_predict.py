"""Cohorts on Ray: two nodes on this machine, workers and drivers killed with SIGKILL in the middle."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

from deploy.cluster.predict import ClusterSummary, Watching, predict_on_cluster
from deploy.model.folder import Model, open_model
from deploy.predict.pipeline import Plan, PredictOptions, predict
from deploy.results.audit import verify_audit
from deploy.results.record import Record
from deploy.runtime import Choice
from tests.deploy.conftest import ignore
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient, find_patients
from toolkit.data.reading.door import Images
from toolkit.errors import ModelError, RuntimeUnavailable, SettingsError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets and files to its end

ROOT = Path(__file__).parents[3]
ON_CPU = Choice("onnx", "cpu")
STORE = 100 << 20


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> None:
    """Not here: of narrow networks the last digits depend on the batch."""


@pytest.fixture(scope="module")
def exported(wide: Path) -> Path:
    return wide


@pytest.fixture(scope="module")
def everybody(cohort: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Patient, ...]:
    """Twelve patients, the last one without a modality."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(12):
        shutil.copytree(cohort.patients[number % 6].folder, folder / f"p{number:02}")
    next((folder / "p11").glob("*_t2.nii*")).unlink()
    return find_patients([folder])


@pytest.fixture(scope="module")
def alone(everybody: tuple[Patient, ...], exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `predict` on this machine."""

    out = tmp_path_factory.mktemp("alone")
    predict(everybody, open_model(exported), PredictOptions(out, ON_CPU, PredictSettings()), ignore, ignore)
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of one core each; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster()
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=STORE, include_dashboard=False)
        yield nodes.address
        nodes.shutdown()


def grade(
    patients: Sequence[Patient],
    model: Model,
    options: PredictOptions,
    address: str,
    on_record: Callable[[Record], object] = ignore,
) -> tuple[ClusterSummary, list[int]]:
    again: list[int] = []

    def on_plan(where: str, plan: Plan, kept: int) -> None:
        assert "2 nodes" in where
        assert "2 x ONNX Runtime on the CPU in fp32" in plan.chosen

    def seen(record: Record) -> None:
        on_record(record)

    watching = Watching(on_plan, seen, lambda count, _: again.append(count))
    return predict_on_cluster(patients, model, options, address, watching), again


def rows(results: Path) -> list[dict[str, str]]:
    """The table without the times."""
    with (results / "predictions.csv").open(newline="") as stream:
        return [{**row, "seconds": ""} for row in csv.DictReader(stream)]


def records(results: Path) -> list[dict[str, Any]]:
    content = json.loads((results / "predictions.json").read_text())
    assert content["complete"] is True
    return [{**record, "seconds": None} for record in content["patients"]]


def check_equal(results: Path, alone: Path) -> None:
    assert rows(results) == rows(alone)  # the probability to six digits
    for ours, theirs in zip(records(results), records(alone), strict=True):
        numbers = {name: ours.pop(name) for name in ("probability", "distance")}
        assert numbers == pytest.approx({name: theirs.pop(name) for name in numbers}, abs=1e-6)
        assert ours == theirs
    verify_audit(results / "audit.jsonl")


def kill_a_worker(title: str) -> None:
    """The first process of Ray's whose title begins so."""
    for process in psutil.Process().children(recursive=True):
        if (
            process.status() != psutil.STATUS_ZOMBIE
            and process.cmdline()[:1]
            and process.cmdline()[0].startswith(title)
        ):
            process.send_signal(signal.SIGKILL)
            return
    pytest.fail(f"no process {title}")


def test_two_nodes_give_what_one_machine_gives_though_a_worker_is_killed(
    everybody: tuple[Patient, ...], model: Model, cluster: str, alone: Path, tmp_path: Path
) -> None:
    seen: list[str] = []

    def on_record(record: Record) -> None:
        seen.append(record.patient)
        if len(seen) == 3:
            kill_a_worker("ray::Worker")

    options = PredictOptions(tmp_path, ON_CPU, PredictSettings(batch_size=2), resume=True)
    summary, again = grade(everybody, model, options, cluster, on_record)
    assert summary[:3] == (11, 1, 0)
    assert sum(again) >= 1
    assert sorted(seen) == [patient.id for patient in everybody]
    check_equal(tmp_path, alone)


def test_a_patient_who_ends_every_worker_is_given_up_alone(
    everybody: tuple[Patient, ...], model: Model, cluster: str, alone: Path, tmp_path: Path
) -> None:
    def deadly(images: Images) -> Images:
        import os
        import signal

        if images.files["t1"].parent.name == "p04":
            os.kill(os.getpid(), signal.SIGKILL)
        return images

    options = PredictOptions(tmp_path, ON_CPU, PredictSettings(batch_size=3), edit=deadly, resume=True)
    summary, again = grade(everybody, model, options, cluster)
    assert summary[:3] == (10, 2, 0)
    assert again == [3, 1, 1, 1]  # the batch first, then he alone
    found, wanted = rows(tmp_path), rows(alone)
    assert "its worker died 3 times" in found.pop(4)["reason"]
    wanted.pop(4)
    assert found == wanted


def test_what_cannot_work_is_said_before_anybody_is_graded(
    everybody: tuple[Patient, ...], model: Model, folder: Path, cluster: str, tmp_path: Path
) -> None:
    def options(choice: Choice) -> PredictOptions:
        return PredictOptions(tmp_path, choice, PredictSettings())

    with pytest.raises(SettingsError, match="Ray assigns the cards"):
        grade(everybody, model, options(Choice("onnx", "cuda:1")), cluster)
    with pytest.raises(RuntimeUnavailable, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        grade(everybody, model, options(ON_CPU), "127.0.0.1:1")
    for address in ("nonsense", "ray://host:10001", "host:port"):
        with pytest.raises(RuntimeUnavailable, match="write it as HOST:PORT"):
            grade(everybody, model, options(ON_CPU), address)
    with pytest.raises(RuntimeUnavailable, match="the cluster has no GPU"):
        grade(everybody, model, options(Choice("onnx", "cuda")), cluster)
    with pytest.raises(ModelError, match="altered after the export"):
        (folder / "model.onnx").write_bytes(b"x")

        grade(everybody, open_model(folder), options(ON_CPU), cluster)
    assert not (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize("address", ["local", "auto", "127.0.0.1:{port}"])
def test_a_ray_that_does_not_start_is_one_sentence(
    address: str, everybody: tuple[Patient, ...], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray raises a bare `Exception` where a node does not start in time, and an OSError on a full disk."""

    errors = [Exception("The current node timed out during startup.\nMore."), OSError(28, "No space left")]

    def fail(**_: object) -> None:
        raise errors.pop()

    monkeypatch.setattr("ray.init", fail)
    options = PredictOptions(tmp_path, ON_CPU, PredictSettings())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = address.format(port=listening.getsockname()[1])
        while errors:
            with pytest.raises(RuntimeUnavailable, match=r"^[^\n]*: (The current node|\[Errno 28\])[^\n]*$"):
                grade(everybody, model, options, where)
