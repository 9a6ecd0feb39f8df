"""Prediction of 100 and of 1,000 patients: is the time linear, is the memory flat?

    python -m benchmarks.scale MODEL PATIENT_FOLDER [PATIENT_FOLDER ...]

The cohort is the patients' files, hard-linked under many names where the disk allows it. Each `grade predict` is a
process of its own; its memory is the largest that the system saw of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.common import arguments, linked, report


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Prediction of few and of many patients.",
        ("model", {"type": Path, "help": "exported model"}),
        ("patients", {"type": Path, "nargs": "+", "help": "folders with four modalities"}),
        ("--counts", {"type": int, "nargs": "+", "default": [100, 1000]}),
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in given.counts:
            cohort, out = Path(folder) / str(count), Path(folder) / f"results{count}"
            linked(given.patients, cohort, count)
            command = [
                sys.executable,
                "-m",
                "cli",
                "predict",
                str(cohort),
                "--model",
                str(given.model),
                "--out",
                str(out),
            ]
            start = perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            said = process.stderr.read() if process.stderr else ""
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(said)
            seconds = perf_counter() - start
            rows.append((count, seconds, 1000 * seconds / count, usage.ru_maxrss / 1024))
    report("grade predict", ("patients", "s", "ms a patient", "largest memory MiB"), rows, given.out)


if __name__ == "__main__":
    main()
