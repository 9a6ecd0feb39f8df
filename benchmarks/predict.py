"""Prediction of a cohort against its parts: does reading hide behind inference, or inference behind reading?

    python -m benchmarks.predict MODEL PATIENT_FOLDER [PATIENT_FOLDER ...]

The cohort is the patients' files, linked under many names. `reading` reads and preprocesses it in as many threads as a
prediction may take; `inference` answers as many scans that are in memory already. The whole cannot be faster than the
longer of both. The peer is what a careful script does: MONAI's transforms and the trained network in torch, one after
the other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

import torch
from threadpoolctl import threadpool_limits

from benchmarks.common import arguments, linked, report
from benchmarks.read import monai_chain
from deploy.model.folder import Model, open_model
from deploy.predict.pipeline import PredictOptions, Summary, predict
from deploy.predict.reader import Wanted, reader
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient, find_patients, match_modalities
from toolkit.data.scan import read_scan
from toolkit.machine import most_readers


def reading(patients: tuple[Patient, ...], model: Model, workers: int) -> float:
    """Seconds to read and preprocess everybody."""
    start = perf_counter()
    with threadpool_limits(1, user_api="blas"), reader(patients, Wanted(model.manifest.grid), workers) as reads:
        while reads.take() is not None:
            pass
    return perf_counter() - start


def inference(patients: tuple[Patient, ...], model: Model, choice: Choice, batch_size: int) -> float:
    """Seconds to answer as many scans in batches."""
    runtime = open_runtime(model, choice)
    batch = read_scan(patients[0], model.manifest.grid).data[None].repeat(batch_size, axis=0)
    runtime.infer(batch)
    start = perf_counter()
    for _ in range(0, len(patients), batch_size):
        runtime.infer(batch)
    return perf_counter() - start


def whole(patients: tuple[Patient, ...], model: Model, choice: Choice, out: Path) -> Summary:
    """What `grade predict` does after its start."""
    options = PredictOptions(out, choice, PredictSettings())
    return predict(patients, model, options, lambda _: None, lambda _: None)


def peer(patients: tuple[Patient, ...], model: Model) -> float:
    """Seconds of MONAI's transforms and torch, one patient after the other, all cores."""
    chain, runtime = monai_chain(model.manifest.grid), open_runtime(model, Choice("torch", "auto"))
    paths = [{k: str(v) for k, v in match_modalities(p.folder).modalities.items()} for p in patients]
    runtime.infer(chain(paths[0])["image"].numpy()[None])
    start = perf_counter()
    for one in paths:
        runtime.infer(chain(one)["image"].numpy()[None])
    return perf_counter() - start


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Prediction of a cohort against its parts.",
        ("model", {"type": Path, "help": "exported model"}),
        ("patients", {"type": Path, "nargs": "+", "help": "folders with four modalities"}),
        ("--count", {"type": int, "default": 40}),
        ("--turns", {"type": int, "default": 3}),
        ("--device", {"default": "auto"}),
    )
    model, choice = open_model(given.model), Choice("onnx", given.device)
    with tempfile.TemporaryDirectory() as folder:
        cohort = Path(folder) / "cohort"
        linked(given.patients, cohort, given.count)
        patients = find_patients([cohort])
        rows = []
        for _ in range(given.turns):  # the parts in each turn, as the machine is not equally quiet at all times
            done = whole(patients, model, choice, Path(folder) / "results")
            read = reading(patients, model, most_readers())
            infer = inference(patients, model, choice, done.plan.batch_size)
            steady = done.timings.total - done.timings.open - done.timings.self_test
            rows.append((read, infer, steady, steady / max(read, infer)))
        read, infer, steady, ratio = sorted(rows, key=lambda row: row[3])[len(rows) // 2]
        few = patients[: max(4, given.count // 5)]
        slow = peer(few, model) / len(few)
    each = 1000 / given.count
    columns = (
        "runtime",
        "reading ms",
        "inference ms",
        "grade predict ms",
        "whole / longer part",
        "MONAI + torch ms",
        "ratio",
    )
    row = (done.plan.chosen, read * each, infer * each, steady * each, ratio, 1000 * slow, slow / steady * given.count)
    report(
        f"Prediction, ms a patient, {given.count} patients, torch threads {torch.get_num_threads()}",
        columns,
        [row],
        given.out,
    )


if __name__ == "__main__":
    main()
