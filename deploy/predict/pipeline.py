"""Read -> batch -> infer -> decide -> write, overlapped: threads read ahead while the runtime opens and computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from threadpoolctl import threadpool_limits

from deploy.model.folder import Model, library_versions
from deploy.predict.grader import Graded, Grader, Seen, Timings, padded
from deploy.predict.pace import PAGE, choose_reading, find_pace
from deploy.predict.reader import Read, Wanted, reader
from deploy.predict.verdict import single_grades
from deploy.results.audit import Audit
from deploy.results.ledger import Earlier, Ledger
from deploy.results.record import Record
from deploy.runtime import Choice
from deploy.runtimes.halving import Halving
from deploy.runtimes.open import makes_scans, open_card, open_runtime
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient
from toolkit.data.scan import Edit
from toolkit.data.workers.pool import Processes
from toolkit.data.workers.work import Results
from toolkit.errors import SettingsError
from toolkit.machine import most_readers

OnSeen: TypeAlias = Callable[[Record, Seen], None]

LIBRARIES = ("glioma-grade", "numpy", "nibabel", "imagecodecs", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torch")


@dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Attributes:
        results: folder to write to.
        choice: runtime, device, precision and threads.
        settings: batch size and number of readers; None leaves them to `predict`.
        edit: changes the images, for a control experiment.
        audit_ids: whether `audit.jsonl` names patients.
        resume: keep the patients whom earlier calls into the same folder graded, and add to them.
        overwrite: replace results of other patients.
        on_seen: called with each graded patient's record and what it was graded from, for pictures.
        unseen: whether a patient that is kept has to be shown to `on_seen` now; None: no.
    """

    results: Path
    choice: Choice
    settings: PredictSettings
    edit: Edit | None = None
    audit_ids: bool = False
    resume: bool = False
    overwrite: bool = False
    on_seen: OnSeen | None = None
    unseen: Callable[[Record], bool] | None = None

    @property
    def earlier(self) -> Earlier:
        """What becomes of results that are in the folder.

        Raises:
            SettingsError: both were asked for.
        """
        if self.resume and self.overwrite:
            raise SettingsError("resume keeps the results that are there, overwrite replaces them; choose one.")
        return "resume" if self.resume else "overwrite" if self.overwrite else "refuse"


class Plan(NamedTuple):
    """What was chosen before the first patient is graded.

    Attributes:
        chosen: runtime, device and precision, in a sentence.
        batch_size: patients at once.
        workers: how many read at once.
        measured: what the choice rests on, in words.
        notes: what becomes of the results of earlier calls, in sentences.
    """

    chosen: str
    batch_size: int
    workers: int
    measured: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What came of it.

    Attributes:
        graded: patients of this call that have a grade.
        refused: patients of this call that have none.
        kept: those of the graded ones that an earlier call graded.
        others: patients of earlier calls, not among those of this one, who stay in the results.
        plan: what was chosen.
        timings: what took how long.
    """

    graded: int
    refused: int
    kept: int
    others: int
    plan: Plan
    timings: Timings


def ignore(_: object) -> None:
    """What the caller is told, when it does not want to know."""


def predict(
    patients: Sequence[Patient],
    model: Model,
    options: PredictOptions,
    on_plan: Callable[[Plan], None] = ignore,
    on_record: Callable[[Record], None] = ignore,
) -> Summary:
    """Grade patients. Their order is kept, whatever the batch size and the number of readers.

    At most readers + 2 batches of scans are in memory. A patient that cannot be read is recorded as refused, and the
    others continue. On an interrupt or a failure the results hold every finished patient; `options.resume` continues
    from there.

    Args:
        patients: as `toolkit.data.patients.find_patients` gives them.
        model: opened; the runtime's file is checked here, and the self-test is run, before anybody is graded.
        options: where to, and how.
        on_plan: called once, when runtime, batch size and number of readers are known.
        on_record: called with each patient's record, kept ones too, after it was written.

    Raises:
        GradeError: the results cannot be written, or are of others; seen before any work is done.
        RuntimeUnavailable: the runtime or device asked for is not there, or failed.
        ModelError: the model was altered or failed its self-test.
    """
    timings = Timings()
    with timings.stage("total"), ExitStack() as stack:
        workers = options.settings.workers or most_readers()
        ledger = stack.enter_context(open_ledger(patients, model, options, workers))
        waiting = [patient for patient in patients if ledger.kept(patient) is None]
        # Parallel over patients, not inside BLAS. The runtimes do not compute with BLAS.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        readers, boxes = choose_reading(options.settings, options.choice, workers, len(waiting))
        boxes = boxes and options.edit is None and options.on_seen is None  # pages show the scans
        wanted = Wanted(model.manifest.grid, options.edit, model.optional, boxes)
        reading = stack.enter_context(ExitStack())
        reads = reading.enter_context(reader(waiting, wanted, workers, readers))
        scans = len(waiting) if options.on_seen is None else PAGE * len(patients)  # kept ones may lack a page
        with timings.stage("open"):
            runtime = Halving(open_runtime(model, options.choice._replace(scans=scans)))
        if boxes and not makes_scans(runtime):
            reading.close()
            wanted = replace(wanted, boxes=False)
            reads = reading.enter_context(reader(waiting, wanted, workers, readers))
        with timings.stage("self_test"):
            pace = find_pace(model, runtime, options.settings, reads, len(waiting))
        plan = Plan(runtime.chosen, *pace, tuple(ledger.notes))
        on_plan(plan)
        card = None
        if wanted.boxes and isinstance(reads, Processes):
            with timings.stage("self_test"):
                card = open_card(runtime.runtime, plan.batch_size, reads.slots)
                stack.callback(card.close)
        grader = Grader(model, runtime, plan.batch_size, timings, card)
        graded = 0
        with ledger.writing(results_head(model, plan)):
            batch: deque[Graded] = deque()
            for patient in patients:
                record = ledger.kept(patient)
                if record is None:
                    batch = batch or _next_batch(reads, grader)
                    record = _keep(ledger, patient, batch.popleft(), options.on_seen, timings)
                on_record(record)
                graded += record.grade is not None
            _show_kept(patients, ledger, options, grader)
    kept = len(patients) - len(waiting)
    return Summary(graded, len(patients) - graded, kept, ledger.others, plan, timings)


def open_ledger(patients: Sequence[Patient], model: Model, options: PredictOptions, workers: int) -> Ledger:
    """The results folder of a call; to be entered.

    Raises:
        SettingsError: the options contradict each other, or name a folder inside the model.
    """
    if options.results.resolve().is_relative_to(model.folder.resolve()):
        raise SettingsError(
            f"{options.results} is inside the model {model.folder}, which holds what was exported and nothing else;"
            " name another folder with --out."
        )
    audit = Audit(options.results, library_versions(LIBRARIES), model.fingerprint, options.audit_ids)
    return Ledger(patients, audit, options.earlier, workers, options.choice[:2])


def _next_batch(reads: Results[Read], grader: Grader) -> deque[Graded]:
    """Fill a batch and run it; a patient that is refused does not wait for others."""
    while True:
        with grader.timings.stage("waiting"):
            read = reads.take(grader.batch_size)
        if read is not None:
            grader.add(read)
        if read is None or grader.full:
            return deque(grader.run())


def _keep(ledger: Ledger, patient: Patient, graded: Graded, on_seen: OnSeen | None, timings: Timings) -> Record:
    with timings.stage("write"):
        ledger.add(patient, graded.record)
    if on_seen and graded.seen:
        with timings.stage("report"):
            on_seen(graded.record, graded.seen)
    return graded.record


def _show_kept(patients: Sequence[Patient], ledger: Ledger, options: PredictOptions, grader: Grader) -> None:
    """What is missing for the patients that an earlier call graded: they are read again, and not graded again."""
    if options.unseen is None or options.on_seen is None:
        return
    kept = [(patient, record) for patient in patients if (record := ledger.kept(patient)) and options.unseen(record)]
    size = grader.batch_size if padded(grader.runtime) else 1
    wanted = Wanted(grader.model.manifest.grid, options.edit, grader.model.optional)
    with (
        grader.timings.stage("report"),
        reader([patient for patient, _ in kept], wanted, 1) as reads,
    ):
        for _, record in kept:
            read = reads.take()
            if read and read.scan and read.inputs == record.inputs:
                options.on_seen(record, Seen(read.scan, grader.runtime, size, read.patient))


def results_head(model: Model, plan: Plan) -> dict[str, object]:
    """What `predictions.json` says in addition to the patients."""
    conformal, familiarity = model.manifest.conformal, model.manifest.out_of_distribution
    return {
        "model": {
            "fingerprint": model.fingerprint,
            "created": model.manifest.created,
            "calibration": model.manifest.calibration.model_dump(mode="json"),
            "conformal": conformal.model_dump(mode="json") if conformal else None,
            "out_of_distribution": familiarity.model_dump(mode="json") if familiarity else None,
            "single_grade": {grade: counts._asdict() for grade, counts in single_grades(model.manifest).items()},
            "synthetic": model.manifest.training.synthetic,
        },
        "runtime": plan.chosen,
        "batch_size": plan.batch_size,
        "workers": plan.workers,
        "measured": plan.measured,
        "versions": library_versions(LIBRARIES),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
