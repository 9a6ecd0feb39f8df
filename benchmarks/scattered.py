"""Are metastases noticed by image statistics, whichever cohort the ranges were learned from?

    python -m benchmarks.scattered --seeds 3 4 5

For each seed a cohort like `grade demo`'s, 100 phantoms, gives the ranges, as at export. Then 40 others of another
seed, as they are and with seven small metastases (`benchmarks.unfamiliar`). No network is asked, so none is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import arguments, report
from benchmarks.unfamiliar import metastases, spoil
from toolkit.data.patients import Patient, find_patients
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.data.reading.door import open_patient
from toolkit.data.statistics import image_statistics
from toolkit.evaluation.familiarity import IMAGE_RATE, Bound, fit_bounds

COLUMNS = ("seed", "scattered up to, ml", "as they are", "metastases", "by scattered")


def phantoms(folder: Path, count: int, seed: int) -> Sequence[Patient]:
    """Like those of `grade demo`."""
    write_cohort(folder, PhantomSettings(count, seed, difficulty=0.0, hgg_share=0.6, spacing=2.0), lambda _: None)
    return find_patients([folder])


def statistics(patients: Sequence[Patient]) -> list[dict[str, float]]:
    """Of each."""
    return [image_statistics(open_patient(patient)) for patient in patients]


def outside(bounds: Sequence[Bound], found: dict[str, float]) -> set[str]:
    """Names of the statistics out of their ranges."""
    return {bound.name for bound in bounds if not bound.low <= found[bound.name] <= bound.high}


def measured(seed: int) -> tuple[object, ...]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        known = statistics(phantoms(Path(folder) / "cohort", 100, 2 * seed))
        new = phantoms(Path(folder) / "new", 40, 2 * seed + 1)
        plain = statistics(new)
        sick = statistics([spoil(patient, metastases, Path(folder)) for patient in new])
    names = tuple(known[0])
    bounds = fit_bounds(np.array([[one[name] for name in names] for one in known]), names, IMAGE_RATE)
    return (
        seed,
        next(bound.high for bound in bounds if bound.name == "scattered"),
        sum(bool(outside(bounds, one)) for one in plain),
        sum(bool(outside(bounds, one)) for one in sick),
        sum("scattered" in outside(bounds, one) for one in sick),
    )


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Are metastases noticed by image statistics, whichever cohort the ranges were learned from?",
        ("--seeds", {"type": int, "nargs": "+", "default": [3, 4, 5], "help": "of `grade demo`"}),
    )
    rows = [measured(seed) for seed in given.seeds]
    report("Called unfamiliar by image statistics, of 40", COLUMNS, rows, given.out)


if __name__ == "__main__":
    main()
