"""`grade predict --cluster` on this machine alone against plain `grade predict`: what Ray costs, the driver's memory.

    python -m benchmarks.cluster MODEL PATIENT_FOLDER

The cohort is one patient's files, linked under many names. Both read, preprocess and infer on the CPU. Seconds are
those of grading, after the model was opened; memory is what the process that writes the results gains while it grades,
so that few and many patients can be compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import psutil

from benchmarks.common import arguments, linked, report
from deploy.cluster.predict import LOCAL, Watching, predict_on_cluster
from deploy.model.folder import open_model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.runtime import Choice
from toolkit.config import PredictSettings
from toolkit.data.patients import find_patients


class Clock:
    """Starts when the plan is known."""

    def __init__(self) -> None:
        self.start, self.memory, self.most = 0.0, 0, 0

    def plan(self, *_: object) -> None:
        """The model is open."""
        self.start = perf_counter()
        self.memory = self.most = psutil.Process().memory_info().rss

    def record(self, _: object) -> None:
        """One more is done."""
        self.most = max(self.most, psutil.Process().memory_info().rss)


def grade(how: str, model: Path, cohort: Path) -> tuple[float, float]:
    """Seconds of grading, and MiB gained."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        options = PredictOptions(Path(out), Choice("onnx", "cpu"), PredictSettings())
        patients = find_patients([cohort])
        if how == "predict":
            predict(patients, open_model(model), options, clock.plan, clock.record)
        else:
            watching = Watching(clock.plan, clock.record, lambda count, why: sys.exit(f"{count} done again: {why}"))
            predict_on_cluster(patients, open_model(model), options, LOCAL, watching)
        return perf_counter() - clock.start, (clock.most - clock.memory) / 2**20


def main() -> None:
    """Measure and report; a process of its own for each, so that memory can be compared."""
    given = arguments(
        "grade predict over Ray against grade predict.",
        ("model", {"type": Path, "help": "model folder"}),
        ("patient", {"type": Path, "help": "folder with four modalities"}),
        ("--counts", {"type": int, "nargs": "+", "default": [40, 200]}),
        ("--only", {"nargs": 2, "help": "predict or cluster, and a cohort; print seconds and MiB"}),
    )
    if given.only:
        print(*grade(given.only[0], given.model, Path(given.only[1])))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in given.counts:
            cohort = Path(folder) / str(count)
            linked([given.patient], cohort, count)
            for how in ("predict", "cluster"):
                command = [sys.executable, "-m", "benchmarks.cluster", str(given.model), str(given.patient), "--only"]
                printed = subprocess.run(
                    [*command, how, str(cohort)], capture_output=True, text=True, check=True
                ).stdout
                seconds, mib = map(float, printed.split())
                rows.append((count, how, seconds, count / seconds, mib))
    columns = ("patients", "how", "grading s", "patients/s", "memory gained MiB")
    report(f"grade predict over Ray, {os.cpu_count()} cores", columns, rows, given.out)


if __name__ == "__main__":
    main()
