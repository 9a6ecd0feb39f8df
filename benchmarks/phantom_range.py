"""How many image statistics of real patients are within what 95 % of the phantoms have?

python -m benchmarks.phantom_range --phantoms 150 --out range.json         # measures phantoms, of 1 mm
python -m benchmarks.phantom_range --range range.json --patients PATIENTS  # holds patients against them
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.common import arguments, keep, report
from toolkit.config import Grid
from toolkit.data.patients import Patient, find_patients
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.data.scan import read_scan
from toolkit.machine import most_readers

SHARE = 0.95


def statistics(patients: Sequence[Patient]) -> dict[str, list[float]]:
    """Name -> the value of each patient."""
    with ThreadPoolExecutor(most_readers()) as pool:
        found = list(pool.map(lambda patient: read_scan(patient, Grid()).statistics, patients))
    return {name: [one[name] for one in found] for name in found[0]}


def main() -> None:
    """Measure phantoms, or print where patients are outside their range."""
    given = arguments(
        "Image statistics of real patients against those of phantoms.",
        ("--phantoms", {"type": int, "default": 150}),
        ("--seed", {"type": int, "default": 7}),
        ("--range", {"type": Path, "default": None}),
        ("--patients", {"type": Path, "default": None}),
    )
    if given.range is None:
        with tempfile.TemporaryDirectory() as folder:
            settings = PhantomSettings(given.phantoms, given.seed, 0.5)
            write_cohort(Path(folder) / "phantoms", settings, lambda _: None)
            values = statistics(find_patients([Path(folder) / "phantoms"]))
        ends = ((1 - SHARE) / 2, (1 + SHARE) / 2)
        keep(
            {"phantoms": given.phantoms, "range": {k: np.quantile(v, ends).tolist() for k, v in values.items()}},
            given.out,
        )
        return
    limits = json.loads(given.range.read_text())["range"]
    real = statistics(find_patients([given.patients]))
    rows = []
    for name, values in real.items():
        low, high = limits[name]
        outside = [value for value in values if not low <= value <= high]
        rows.append((name, low, high, len(values) - len(outside), ", ".join(f"{value:.3g}" for value in outside)))
    inside, all_of_them = sum(row[3] for row in rows), sum(map(len, real.values()))
    columns = ("statistic", "low", "high", "patients inside", "outside")
    report(f"{inside} of {all_of_them} inside", columns, rows, given.out)


if __name__ == "__main__":
    main()
