"""A cohort in which the site nearly is the grade, as in BraTS 2018, and one of the same scanners in which it is not.

python -m benchmarks.two_sites OUT
grade compare OUT/confounded --set data.labels=OUT/confounded.csv --strategies stable --seeds 2 --out study
python -m benchmarks.fresh study OUT/balanced --labels OUT/balanced.csv
python -m benchmarks.fresh study OUT/balanced --labels OUT/balanced.csv --masked
grade train --set data.cohort=OUT/confounded --set data.labels=OUT/confounded.csv --group site
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import arguments
from toolkit.data.phantom.cohort import PhantomSettings, plan_cohort, write_cohort


@dataclass(frozen=True)
class Part:
    """The patients of one site: how many HGG among how many, drawn with which seed."""

    site: str
    hgg: int
    patients: int
    seed: int


# 210 HGG and 75 LGG, as BraTS 2018. Of the HGG all but 2 are from site a, of the LGG all but 1 from site b: the site
# alone has an AUC of (208 / 210 + 74 / 75) / 2 = 0.989.
COHORTS = {
    "confounded": (Part("a", 208, 209, 11), Part("b", 2, 76, 12)),
    "again": (Part("a", 208, 209, 15), Part("b", 2, 76, 16)),
    "balanced": (Part("a", 60, 120, 13), Part("b", 60, 120, 14)),
}


def write(out: Path, parts: Sequence[Part], difficulty: float, spacing: float, scale: float) -> None:
    """A cohort of several sites in `out`, and its table of grades and sites next to it."""
    rows = []
    for part in parts:
        patients = max(4, round(part.patients * scale))
        settings = PhantomSettings(patients, part.seed, difficulty, part.hgg / part.patients, spacing, part.site)
        write_cohort(out / part.site, settings, lambda _: None)
        rows += [(one.id, ("LGG", "HGG")[one.grade], part.site) for one in plan_cohort(settings)]
    with out.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([("patient", "grade", "site"), *rows])


def main() -> None:
    """Write the cohorts."""
    given = arguments(
        "Cohorts of two sites.",
        ("folder", {"type": Path}),
        ("--difficulty", {"type": float, "default": 0.6}),
        ("--spacing", {"type": float, "default": 1.5}),
        ("--scale", {"type": float, "default": 1.0, "help": "share of the patients, to try it"}),
        ("--only", {"choices": tuple(COHORTS), "default": None}),
    )
    for name, parts in COHORTS.items():
        if given.only in (None, name):
            write(given.folder / name, parts, given.difficulty, given.spacing, given.scale)


if __name__ == "__main__":
    main()
