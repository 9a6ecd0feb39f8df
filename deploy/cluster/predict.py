"""A cohort on a cluster, by Ray: what `predict` does, over many machines, and going on after a death of any of them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import prod
from time import perf_counter
from typing import Any, NamedTuple

import ray
from ray._private import ray_constants

from deploy.cluster.crew import Crew, Job
from deploy.machine import gpus
from deploy.model.folder import Model
from deploy.predict.pipeline import Plan, PredictOptions, open_ledger, results_head
from deploy.results.record import Record
from toolkit.data.patients import Patient
from toolkit.errors import RuntimeUnavailable, SettingsError
from toolkit.files import first_line
from toolkit.machine import cores, most_readers

AUTO, LOCAL = "auto", "local"
LEAST_STORE = 100 << 20  # bytes of Ray's memory for objects, in addition to the scans


@dataclass(frozen=True)
class Watching:
    """What the caller is told.

    Attributes:
        on_plan: which cluster and runtimes, and how many patients are kept from earlier calls; once, if any is left.
        on_record: each record, as soon as it is done; not those kept from an earlier call.
        on_again: how many patients are done again, and why.
    """

    on_plan: Callable[[str, Plan, int], None]
    on_record: Callable[[Record], None]
    on_again: Callable[[int, str], None]


class ClusterSummary(NamedTuple):
    """What came of it: patients graded and refused in all, those of them kept from earlier calls; seconds of this."""

    graded: int
    refused: int
    kept: int
    seconds: float


def predict_on_cluster(
    patients: Sequence[Patient], model: Model, options: PredictOptions, address: str, watching: Watching
) -> ClusterSummary:
    """Grade patients on a Ray cluster; files and order are those of `predict`.

    `records.jsonl` in the results folder takes each record as it is done. A call that resumes continues from there:
    patients who were graded are not graded again. A worker that dies is replaced, and its patients are done again.

    Args:
        patients: on storage that every node sees under the same path.
        model: as above.
        options: where to, and how; `on_seen` is not called, and the device may not name one card.
        address: `auto`: the cluster that runs on this machine, else `local`: this machine alone; or HOST:PORT.
        watching: what is told on the way.

    Raises:
        GradeError: as `predict`; also when there is no cluster at the address.
    """
    start = perf_counter()
    if options.choice.device.startswith("cuda:"):
        raise SettingsError(f"device {options.choice.device} was asked for, but Ray assigns the cards; choose cuda.")
    graded = 0
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(patients, model, options, most_readers()))
        waiting = [patient for patient in patients if ledger.kept(patient) is None]
        kept = len(patients) - len(waiting)
        plan = Plan("Nothing was left to grade.", 0, 0, notes=tuple(ledger.notes))
        crew = None
        if waiting:
            where = stack.enter_context(_connected(address, model))
            crew = _crew(model, options, len(waiting), watching)
            plan = crew.open()._replace(notes=plan.notes)
            watching.on_plan(where, plan, kept)

        def on_done(patient: Patient, record: Record) -> None:
            nonlocal graded
            ledger.add(patient, record)
            watching.on_record(record)
            graded += record.grade is not None

        with ledger.writing(results_head(model, plan)):
            if crew is not None:
                crew.grade(waiting, on_done)
    graded += kept
    return ClusterSummary(graded, len(patients) - graded, kept, perf_counter() - start)


def _crew(model: Model, options: PredictOptions, patients: int, watching: Watching) -> Crew:
    """Workers for the cluster that is connected; `auto` is its GPUs where it has any."""
    found = ray.cluster_resources()
    choice = options.choice
    if choice.device == "auto":
        choice = choice._replace(device="cuda" if found.get("GPU") else "cpu")
    job = Job(
        folder=model.folder.absolute(),
        fingerprint=model.fingerprint,
        options=replace(options, choice=choice, on_seen=None, unseen=None),
        patients=patients,
        version=version("glioma-grade"),
        optional=model.optional,
    )
    readers = options.settings.workers or max(1, int(found.get("CPU", 1)))
    return Crew(job, model.manifest.grid, model.manifest.calibration.threshold, readers, watching.on_again)


@contextmanager
def _connected(address: str, model: Model) -> Iterator[str]:
    """A cluster, in words; one that is started here ends with the block.

    Raises:
        RuntimeUnavailable: nothing answers at the address, or it runs another Ray or Python.
    """
    if address not in (AUTO, LOCAL):
        _check_answers(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        if address == LOCAL or not _joined(address, quiet):
            stack.enter_context(_loopback())
            store = _store_bytes(model)
            stack.callback(ray.shutdown)
            with _begun("Ray cannot be started on this machine"):
                ray.init(address=LOCAL, include_dashboard=False, num_cpus=cores(), object_store_memory=store, **quiet)
            where = "Ray on this machine alone"
        else:
            stack.callback(ray.shutdown)
            where = f"the Ray cluster at {ray.get_runtime_context().gcs_address}"
        nodes = sum(node["Alive"] for node in ray.nodes())
        yield f"{where}: {nodes} node{'s' * (nodes > 1)}"


@contextmanager
def _loopback() -> Iterator[None]:
    """Let what Ray starts here listen on 127.0.0.1 only: anyone who reaches its ports can run code.

    Ray takes the address of a network card even for one machine, and offers no argument against that. With its switch
    for systems where it has no clusters it takes 127.0.0.1, and what it starts then listens nowhere else.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, variable = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if variable is None:
            del os.environ[name]
        else:
            os.environ[name] = variable


def _joined(address: str, quiet: dict[str, Any]) -> bool:
    """Connect to a cluster; False where `auto` finds none."""
    with _begun(f"there is no Ray cluster at {address} that can be used"):
        try:
            ray.init(address=address, **quiet)
        except ConnectionError:
            if address != AUTO:
                raise
            return False
    return True


@contextmanager
def _begun(sentence: str) -> Iterator[None]:
    """Say what Ray's own error means: a node that does not start raises a bare `Exception`, others many kinds."""
    try:
        yield
    except Exception as error:
        raise RuntimeUnavailable(f"{sentence}: {first_line(error)}") from error


def _check_answers(address: str) -> None:
    """See that something listens there: Ray itself would wait without end, deaf to signals."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise RuntimeUnavailable(f"--cluster {address}: write it as HOST:PORT, for example 10.0.0.1:6379, or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RuntimeUnavailable(
            f"no Ray cluster answers at {address}: {error}; start one there with `ray start --head`."
        ) from error


def _store_bytes(model: Model) -> int:
    """Room for twice the scans that are under way at any time."""
    cards, grid = len(gpus()), model.manifest.grid.shape
    scans = cores() + 2 * (cards * model.manifest.max_batch or 1)
    return LEAST_STORE + 2 * scans * 4 * len(model.manifest.modalities) * prod(grid)
