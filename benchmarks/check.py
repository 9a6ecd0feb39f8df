"""`grade check` of a cohort against decompression alone, and its memory for few and many patients.

    python -m benchmarks.check PATIENT_FOLDER

The cohort is one patient's files, linked under many names. Decompression reads the same files in as many threads and
does nothing else.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import imagecodecs
import numpy as np

from benchmarks.common import arguments, linked, report
from toolkit.data.cohort.check import check_patients
from toolkit.data.patients import find_patients, match_modalities


def decompress(cohort: Path) -> float:
    """Seconds to read and decompress every file in threads."""
    files = [
        file for patient in find_patients([cohort]) for file in match_modalities(patient.folder).modalities.values()
    ]
    size = int.from_bytes(files[0].read_bytes()[-4:], "little")
    buffers = [np.empty(size, np.uint8) for _ in range(os.cpu_count() or 1)]

    def work(first: int) -> None:
        for file in files[first :: len(buffers)]:
            imagecodecs.gzip_decode(file.read_bytes(), out=buffers[first].data)

    start = perf_counter()
    with ThreadPoolExecutor(len(buffers)) as pool:
        list(pool.map(work, range(len(buffers))))
    return perf_counter() - start


def check(cohort: Path) -> tuple[float, float]:
    """Seconds of a check, and the largest memory of a process that does nothing else, MiB."""
    start = perf_counter()
    refused = sum(bool(found.reason) for found in check_patients(find_patients([cohort]), lambda _: None))
    seconds = perf_counter() - start
    if refused:
        sys.exit(f"{refused} patients were refused")
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and report; a process of its own for each cohort, so that memory can be compared."""
    given = arguments(
        "grade check against decompression alone.",
        ("patient", {"type": Path, "help": "folder with four modalities"}),
        ("--counts", {"type": int, "nargs": "+", "default": [10, 100]}),
        ("--turns", {"type": int, "default": 5}),
        ("--only", {"type": Path, "help": "check this cohort and print seconds and MiB"}),
    )
    if given.only:
        print(*check(given.only))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in given.counts:
            cohort = Path(folder) / str(count)
            linked([given.patient], cohort, count)
            decompress(cohort)  # the files are in the page cache for both
            command = [sys.executable, "-m", "benchmarks.check", str(given.patient), "--only", str(cohort)]
            turns = []
            for _ in range(given.turns):  # by turns, as the machine is not equally quiet at all times
                limit = decompress(cohort)
                printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                turns.append((limit, *map(float, printed.split())))
            limit, seconds, mib = np.median(turns, axis=0).tolist()
            rows.append((count, limit, seconds, limit / seconds, mib))
    columns = ("patients", "decompression s", "grade check s", "share of its rate", "largest memory MiB")
    report(f"grade check, {os.cpu_count()} cores", columns, rows, given.out)


if __name__ == "__main__":
    main()
