"""Read -> batch -> infer -> decide -> write, overlapped: threads read ahead while the runtime opens and computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from deploy.grader import Grader, OnSeen, Timings
from deploy.model import Model, library_versions
from deploy.pace import find_pace, most_readers
from deploy.reader import Read, reader
from deploy.results.audit import Audit
from deploy.results.journal import Journal, key_of
from deploy.results.record import Record
from deploy.results.table import Results, prepare
from deploy.runtimes import Choice, open_runtime
from deploy.runtimes.halving import Halving
from toolkit.config import PredictSettings
from toolkit.data.ahead import Ahead
from toolkit.data.patients import Patient
from toolkit.data.scan import Edit

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
        resume: keep the patients whom an earlier call into the same folder graded.
        on_seen: called with each graded patient's record and what it was graded from, for pictures.
    """

    results: Path
    choice: Choice
    settings: PredictSettings
    edit: Edit | None = None
    audit_ids: bool = False
    resume: bool = False
    on_seen: OnSeen | None = None


class Plan(NamedTuple):
    """What was chosen before the first patient is graded; `chosen` is a sentence, `measured` what it rests on."""

    chosen: str
    batch_size: int
    workers: int
    measured: str = ""


@dataclass(frozen=True)
class Summary:
    """What came of it: patients graded and refused in all, those of them kept from earlier calls."""

    graded: int
    refused: int
    kept: int
    plan: Plan
    timings: Timings


def predict(
    patients: Sequence[Patient],
    model: Model,
    options: PredictOptions,
    on_plan: Callable[[Plan], None],
    on_record: Callable[[Record], None],
) -> Summary:
    """Grade patients. Their order is kept, whatever the batch size and the number of readers.

    At most readers + 2 batches of scans are in memory. A patient that cannot be read is recorded as refused, and the
    others go on. On an interrupt or a failure the results hold every finished patient, and `options.resume` goes on.

    Args:
        patients: as `toolkit.data.patients.find_patients` gives them.
        model: opened; the runtime's file is checked here, and the self-test is run, before anybody is graded.
        options: where to, and how.
        on_plan: called once, when runtime, batch size and number of readers are known.
        on_record: called with each patient's record, kept ones too, after it was written.

    Raises:
        GradeError: the results cannot be written; seen before any work is done.
        RuntimeUnavailable: the runtime or device asked for is not there, or failed.
        ModelError: the model was altered or failed its self-test.
    """
    timings = Timings()
    with timings.stage("total"):
        prepare(options.results)
        workers = options.settings.workers or most_readers()
        with ExitStack() as stack:
            journal = stack.enter_context(Journal(options.results, model.fingerprint, options.resume))
            waiting = [patient for patient in patients if not journal.finished(patient)]
            # Parallel over patients, not inside BLAS. The runtimes do not compute with BLAS.
            stack.enter_context(threadpool_limits(1, user_api="blas"))
            reads = stack.enter_context(reader(waiting, model.manifest.grid, workers, options.edit))
            with timings.stage("open"):
                runtime = Halving(open_runtime(model, options.choice))
            with timings.stage("self_test"):
                pace = find_pace(model, runtime, options.settings, reads, len(waiting))
            plan = Plan(runtime.chosen, *pace)
            on_plan(plan)
            fresh = _records(reads, Grader(model, runtime, plan.batch_size, timings, options.on_seen))
            graded = 0
            head = results_head(model, plan)
            audit = Audit(options.results, library_versions(LIBRARIES), model.fingerprint, options.audit_ids)
            results = stack.enter_context(Results(options.results, journal, head))
            for patient in patients:
                kept = journal.finished(patient)
                record = journal.read(key_of(patient)) if kept else next(fresh)
                with timings.stage("write"):
                    if not kept:
                        journal.add(record)
                        head["audit"] = audit.add(record)._asdict()
                    results.add(record)
                on_record(record)
                graded += record.grade is not None
    return Summary(graded, len(patients) - graded, len(patients) - len(waiting), plan, timings)


def _records(reads: Ahead[Patient, Read], grader: Grader) -> Iterator[Record]:
    while True:
        with grader.timings.stage("waiting"):
            read = reads.take(grader.batch_size)
        if read is None:
            break
        grader.add(read)
        if grader.full:
            yield from grader.run()
    yield from grader.run()


def results_head(model: Model, plan: Plan) -> dict[str, object]:
    """What `predictions.json` says beside the patients."""
    conformal, familiarity = model.manifest.conformal, model.manifest.out_of_distribution
    return {
        "model": {
            "fingerprint": model.fingerprint,
            "created": model.manifest.created,
            "calibration": model.manifest.calibration.model_dump(mode="json"),
            "conformal": conformal.model_dump(mode="json") if conformal else None,
            "out_of_distribution": familiarity.model_dump(mode="json") if familiarity else None,
        },
        "runtime": plan.chosen,
        "batch_size": plan.batch_size,
        "workers": plan.workers,
        "measured": plan.measured,
        "versions": library_versions(LIBRARIES),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
