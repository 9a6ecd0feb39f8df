"""Ray's part of a cohort on a cluster: readers as tasks, one runtime a card as an actor, and who does what again.

Nothing is left to Ray's own retries: this side sees every death, does the work again elsewhere, and gives up on a
patient who ends his worker time after time, so that one patient can neither stop nor loop a cohort.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from threadpoolctl import threadpool_limits

from deploy.model.folder import open_model
from deploy.predict.grader import Grader, Timings, padded
from deploy.predict.pace import choose_batch_size
from deploy.predict.pipeline import Plan, PredictOptions
from deploy.predict.reader import Read, read_patient
from deploy.results.record import Record, Seconds
from deploy.runtimes.halving import Halving
from deploy.runtimes.open import open_runtime
from deploy.selftest import run_selftest
from toolkit.config import Grid
from toolkit.data.memory import Workspaces
from toolkit.data.patients import Patient, printable
from toolkit.errors import GradeError, ModelError, RuntimeUnavailable
from toolkit.files import first_line

OnDone: TypeAlias = Callable[[Patient, Record], None]

TRIES = 3  # of a patient whose worker dies


class Job(NamedTuple):
    """What each worker is told.

    Attributes:
        folder: of the model, on storage that every node sees.
        fingerprint: of the model; a node that finds another there grades no patient.
        options: see `PredictOptions`; the device is `cpu` or `cuda`.
        patients: how many there are.
        version: of `grade`; a node with another grades no patient.
        optional: modalities of which a patient may lack one.
    """

    folder: Path
    fingerprint: str
    options: PredictOptions
    patients: int
    version: str
    optional: tuple[str, ...] = ()


@dataclass
class _Group:
    """Consecutive patients that go through one runtime together."""

    patients: tuple[Patient, ...]
    failures: int = 0
    sent: int = 0
    worker: Any = None
    answer: Any = None
    done: bool = False


class Worker:
    """The actor: a runtime on one card, or one CPU. It opens at the first question, so that failing is an answer."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._grader: Grader | None = None

    def plan(self) -> Plan:
        """Open and test the model.

        Raises:
            GradeError: as `predict`.
        """
        grader = self._opened()
        return Plan(grader.runtime.chosen, grader.batch_size, 0)

    def grade(self, *reads: Read) -> list[Record]:
        """Records of a group, in its order; no more patients than a batch."""
        grader = self._opened()
        for read in reads:
            grader.add(read)
        return [graded.record for graded in grader.run()]

    def _opened(self) -> Grader:
        if self._grader is None:
            _check_version(self._job.version)
            model = open_model(self._job.folder)
            if model.fingerprint != self._job.fingerprint:
                raise ModelError(f"{socket.gethostname()} sees another model in {model.folder}; share one folder.")
            choice, settings = self._job.options.choice, self._job.options.settings
            runtime = Halving(open_runtime(model, choice))
            size = choose_batch_size(settings, model, runtime, self._job.patients)
            run_selftest(model, runtime, size if padded(runtime) else 1)
            self._grader = Grader(model, runtime, min(size, runtime.most or size), Timings())
        return self._grader


_of_thread = Workspaces()


def read_alone(patient: Patient, grid: Grid, job: Job) -> Read:
    """The task: read one patient, on one core."""
    _check_version(job.version)
    with threadpool_limits(1, user_api="blas"):
        return read_patient(patient, grid, job.options.edit, _of_thread.mine, job.optional)


def _check_version(wanted: str) -> None:
    if (found := version("glioma-grade")) != wanted:
        raise RuntimeUnavailable(
            f"{socket.gethostname()} has grade {found}, this machine {wanted}; install one version on all."
        )


@dataclass
class Crew:
    """The workers of a cluster and what they are at.

    Attributes:
        job: see `Job`.
        grid: of the scans.
        threshold: of the model, for the record of a patient who is given up.
        readers: patients read at once, in the whole cluster.
        on_again: called with the number of patients who are done again, and why.
    """

    job: Job
    grid: Grid
    threshold: float
    readers: int
    on_again: Callable[[int, str], None]
    _workers: list[Any] = field(default_factory=list)
    _size: int = 1
    _sending: Iterator[int] = field(default_factory=count)

    def open(self) -> Plan:
        """Hire one worker for each card, or for each node where the CPU computes, and let them open the model.

        Raises:
            GradeError: as `predict`; also when the cluster lacks what was asked for.
        """
        places = self._places()
        if not places:
            raise RuntimeUnavailable("the cluster has no GPU; choose the device cpu, or add one.")
        self._workers = [self._hire(place) for place in places]
        asked = [worker.plan.remote() for _, worker in self._workers]
        try:
            plans: list[Plan] = [_got(answer) for answer in asked]
        except RayError as error:
            raise RuntimeUnavailable(f"a worker died while it opened the model: {_sentence(error)}.") from error
        self._size = min(plan.batch_size for plan in plans)
        kinds = " ".join(sorted({plan.chosen for plan in plans}))
        return Plan(f"{len(plans)} x {kinds}", self._size, self.readers)

    def grade(self, patients: Sequence[Patient], on_done: OnDone) -> None:
        """Grade patients; few scans are held at any time.

        Args:
            patients: whom to grade.
            on_done: called with each patient and the record as soon as there is one, in any order.
        """
        window = ceil(self.readers / self._size) + 2 * len(self._workers)  # groups, from the first unfinished one on
        starts = range(0, len(patients), self._size)
        waiting = (_Group(tuple(patients[start : start + self._size])) for start in starts)
        groups: deque[_Group] = deque()
        while True:
            while len(groups) < window and (group := next(waiting, None)):
                groups.append(group)
                self._send(group, groups)
            if not groups:
                return
            self._collect(groups, on_done)
            while groups and groups[0].done:
                groups.popleft()

    def _places(self) -> list[str | None]:
        """None for each GPU, which Ray then assigns; else the id of each node."""
        if self.job.options.choice.device == "cuda":
            return [None] * int(ray.cluster_resources().get("GPU", 0))
        return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def _hire(self, place: str | None) -> tuple[str | None, Any]:
        actor: Any = ray.remote(Worker)
        if place is None:
            return place, actor.options(num_cpus=0, num_gpus=1, max_restarts=0).remote(self.job)
        there = NodeAffinitySchedulingStrategy(place, soft=False)
        return place, actor.options(num_cpus=0, max_restarts=0, scheduling_strategy=there).remote(self.job)

    def _send(self, group: _Group, groups: deque[_Group]) -> None:
        """Have a group read, and give it to the worker with the least to do."""
        busy = [other.worker for other in groups if not other.done and other is not group]
        group.worker = min((worker for _, worker in self._workers), key=lambda w: sum(w is other for other in busy))
        read: Any = ray.remote(read_alone).options(num_cpus=1, max_retries=0)
        reads = [read.remote(patient, self.grid, self.job) for patient in group.patients]
        group.answer, group.sent = group.worker.grade.remote(*reads), next(self._sending)

    def _collect(self, groups: deque[_Group], on_done: OnDone) -> None:
        """Take what is answered, at least one; what failed is sent again."""
        open_groups = {group.answer: group for group in groups if not group.done}
        if not open_groups:
            return
        ready, _ = ray.wait([*open_groups], num_returns=1)
        ready, _ = ray.wait([*open_groups], num_returns=len(open_groups), timeout=0)
        failed: list[tuple[_Group, RayError]] = []
        for answer in ready:
            group = open_groups[answer]
            try:
                records: list[Record] = _got(answer)
            except RayError as error:
                failed.append((group, error))
                continue
            group.done = True
            for patient, record in zip(group.patients, records, strict=True):
                on_done(patient, record)
        for group, death in failed:
            if group.answer in open_groups:  # not yet sent again with another's
                self._again(groups, group, death, on_done)

    def _again(self, groups: deque[_Group], group: _Group, error: RayError, on_done: OnDone) -> None:
        """After a death: replace the worker, send its groups again, and count it against the one that was worked on."""
        lost = [group]
        if isinstance(error, RayActorError):
            lost = [other for other in groups if not other.done and other.worker is group.worker]
            lost.sort(key=lambda other: other.sent)  # a worker takes them in this order
            self._replace(group.worker)
        self.on_again(sum(len(other.patients) for other in lost), _sentence(error))
        blamed = lost[0]
        blamed.failures += 1
        if len(blamed.patients) > 1:  # one of them, perhaps: the others shall not suffer
            place = groups.index(blamed)
            del groups[place]
            alone = [_Group((patient,)) for patient in blamed.patients]
            for offset, single in enumerate(alone):
                groups.insert(place + offset, single)
            lost = [*alone, *lost[1:]]
        elif blamed.failures == TRIES:
            blamed.done = True
            on_done(blamed.patients[0], self._given_up(blamed.patients[0]))
            lost = lost[1:]
        for other in lost:
            self._send(other, groups)

    def _replace(self, dead: Any) -> None:
        """Another worker in the same place, unless the card or the node is gone as well.

        Raises:
            RuntimeUnavailable: none is left.
        """
        (place,) = [place for place, worker in self._workers if worker is dead]
        self._workers = [pair for pair in self._workers if pair[1] is not dead]
        left = self._places()
        if len(left) > len(self._workers) if place is None else place in left:
            self._workers.append(self._hire(place))
        if not self._workers:
            raise RuntimeUnavailable(
                "the cluster has lost its last worker; start it again, finished patients are kept."
            )

    def _given_up(self, patient: Patient) -> Record:
        return Record(
            patient=printable(patient.id),
            folder=printable(str(patient.folder)),
            threshold=self.threshold,
            reason=f"its worker died {TRIES} times; look at its files, or give workers more memory",
            runtime=f"{self.job.options.choice.name} on the cluster",
            seconds=Seconds(read=0, infer=0),
        )


def _got(answer: Any) -> Any:
    """A result; an error of ours as itself, and the death of a worker as Ray's error."""
    try:
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, GradeError | RayError):
            raise error.cause from None
        raise


def _sentence(error: RayError) -> str:
    return first_line(error)
