"""How many scans at once and how many readers: chosen by a short measurement, where it is worth its time."""

from __future__ import annotations

from math import ceil
from statistics import median
from typing import NamedTuple

from deploy.machine import gpu_shown
from deploy.model.folder import Model
from deploy.predict.grader import padded
from deploy.predict.reader import Read
from deploy.runtime import Choice, Runtime
from deploy.runtimes.halving import Halving
from deploy.selftest import run_selftest
from toolkit.config import PredictSettings, Readers
from toolkit.data.workers.choose import can_share, in_processes
from toolkit.data.workers.work import Results
from toolkit.errors import SettingsError

# Batches that a cohort has to fill before single scans are tried as well. On an H200 trying takes some 4 s, for 0.7 ms
# a scan at best, and the card waits for the readers anyway.
WORTH = 1000
# Patients from which readers in processes pay where the card prepares the scans; they start while the runtime opens.
# Ms a patient, processes and threads: on 2 cores 47 and 74, on 4 cores 23 and 40, on 16 cores 8 and 28
# (`benchmarks/box.py`).
LEAST_ON_CARD = 32
TURNS = 3
PAGE = 150  # inferences that a patient's page takes, about


class Pace(NamedTuple):
    """What was chosen.

    Attributes:
        batch_size: scans at once.
        workers: readers.
        measured: what the choice rests on, in words; empty: nothing was measured.
    """

    batch_size: int
    workers: int
    measured: str


def choose_batch_size(settings: PredictSettings, model: Model, runtime: Runtime, patients: int) -> int:
    """On a CPU one: a batch is no faster there. On a GPU as large as the model allows, but no larger than needed.

    Raises:
        SettingsError: the model does not take that many.
    """
    most = model.manifest.max_batch
    if settings.batch_size is not None and settings.batch_size > most:
        raise SettingsError(
            f"predict.batch_size = {settings.batch_size}, but the model takes batches up to {most};"
            " lower it, or export again with a larger export.max_batch."
        )
    if runtime.device == "cpu":
        return settings.batch_size or 1
    return min(settings.batch_size or most, max(patients, 1))


def choose_reading(settings: PredictSettings, choice: Choice, workers: int, patients: int) -> tuple[Readers, bool]:
    """What reads, and whether the preprocessing is left to the card.

    Without a GPU the network is the longer part by far, and threads keep up with it.

    Args:
        settings: what is given there is not chosen.
        choice: of the runtime.
        workers: how many read at once.
        patients: to be read.

    Raises:
        SettingsError: processes are asked for where they cannot be had.
    """
    gpu = choice.device != "cpu" and gpu_shown()
    on_card = gpu and choice.name in ("auto", "onnx") and choice.precision != "fp32"
    readers = settings.readers
    if readers == "auto" and not gpu:
        readers = "threads"
    elif readers == "auto" and on_card and can_share() and workers > 1 and patients >= LEAST_ON_CARD:
        readers = "processes"
    return readers, on_card and in_processes(readers, workers, patients)


def find_pace(model: Model, runtime: Halving, settings: PredictSettings, reads: Results[Read], patients: int) -> Pace:
    """Run the self-test in the batch that patients will be graded in, and choose by the time that it takes.

    On a GPU reading is the longer part by far, and every core reads. On a CPU the readers take their time from the
    inference, so there are no more than keep up with it.

    Args:
        model: whose self-test.
        runtime: opened.
        settings: what is given there is not chosen.
        reads: begun; its number of workers is changed.
        patients: to be graded.

    Raises:
        ModelError: the runtime failed the self-test.
        SettingsError: the model does not take so large a batch.
    """
    size = choose_batch_size(settings, model, runtime, patients)
    seconds = run_selftest(model, runtime, size if padded(runtime) else 1)
    size = min(size, runtime.most or size)  # what the self-test found the memory to take
    if padded(runtime):
        if settings.batch_size is not None or size == 1 or patients < WORTH * size:
            return Pace(size, reads.workers, "")
        alone, together = (_seconds(model, runtime, batch) for batch in (1, size))
        said = f"{1000 * together:.1f} ms a scan in batches of {size}, {1000 * alone:.1f} ms alone"
        return Pace(size if together < alone else 1, reads.workers, said)
    read = [one.seconds for one in reads.finished() if one.scan is not None]
    if settings.workers is not None or not read:
        return Pace(size, reads.workers, "")
    reads.workers = min(reads.workers, max(1, ceil(median(read) / seconds)))
    said = f"{1000 * seconds:.0f} ms a scan, {1000 * median(read):.0f} ms to read a patient"
    return Pace(size, reads.workers, said)


def _seconds(model: Model, runtime: Runtime, batch: int) -> float:
    """Median time of a scan in batches of this size, after the search for algorithms; every answer is checked."""
    run_selftest(model, runtime, batch)
    return median(run_selftest(model, runtime, batch) for _ in range(TURNS))
