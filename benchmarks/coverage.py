"""Do the conformal sets hold the true grade as often as they say, on patients that the model has not seen?

    python -m benchmarks.coverage MODEL COHORT

The cohort has known grades and is made like the training's, but is none of it: `grade phantom` with another seed. Two
intervals of 95 % say which coverage is no surprise. `binomial`: the limits leave out exactly a tenth of all patients,
and the cohort alone is random. `beta-binomial`: the limits were themselves learned from n validation patients of
the grade, so the coverage that they give varies from one validation to the next as Beta(n + 1 - k, k) with
k = floor(0.1 (n + 1)) (Vovk 2012); this is the interval that a sound model stays in.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from math import floor
from pathlib import Path

from scipy.stats import betabinom, binom

from benchmarks.common import arguments, report
from deploy.model.folder import open_model
from deploy.model.manifest import Manifest
from deploy.predict.pipeline import PredictOptions, predict
from deploy.results.record import Record
from deploy.runtime import Choice
from toolkit.config import PredictSettings
from toolkit.data.labels import read_cohort
from toolkit.data.patients import CLASSES

ENDS = (0.025, 0.975)
VERDICTS = ("single grade", "uncertain", "unfamiliar")


def intervals(patients: int, learned: int, rate: float) -> tuple[float, ...]:
    """Ends of both intervals of the covered share, for limits that were learned from so many patients."""
    lost = floor(rate * (learned + 1) + 1e-9)
    exact, both = binom(patients, 1 - rate), betabinom(patients, learned + 1 - lost, lost)
    return tuple(float(of.ppf(end)) / patients for of in (exact, both) for end in ENDS)


def found(name: str, records: Sequence[Record], manifest: Manifest) -> dict[str, float | bool]:
    """What became of the patients of one grade."""
    conformal, familiarity = manifest.conformal, manifest.out_of_distribution
    count, learned = len(records), conformal.cases[name]
    covered = sum(name in record.grades for record in records) / count
    low, high, wide_low, wide_high = intervals(count, learned, conformal.rate)
    far = (record.distance is None or record.distance > familiarity.distance for record in records)
    return {
        "patients": count,
        "validation patients": learned,
        "covered": covered,
        "binomial from": low,
        "binomial to": high,
        "inside": low <= covered <= high,
        "beta-binomial from": wide_low,
        "beta-binomial to": wide_high,
        "inside, given the validation": wide_low <= covered <= wide_high,
        **{verdict: sum(record.verdict == verdict for record in records) / count for verdict in VERDICTS},
        "unfamiliar by distance": sum(far) / count,
        "unfamiliar by images": sum(bool(record.outside) for record in records) / count,
        "single grade and wrong": sum(r.verdict == "single grade" and r.grade != name for r in records) / count,
    }


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Coverage of the conformal sets on patients with known grades.",
        ("model", {"type": Path, "help": "exported model"}),
        ("cohort", {"type": Path, "help": "folders LGG and HGG of patients that the model has not seen"}),
    )
    model, cohort = open_model(given.model), read_cohort(given.cohort, None)
    manifest = model.manifest
    if manifest.conformal is None or manifest.conformal.missing or not manifest.out_of_distribution.known:
        sys.exit("the model has no limits for a verdict: it had too few validation patients")
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        options = PredictOptions(Path(folder), Choice("onnx", "cpu"), PredictSettings())
        predict(cohort.patients, model, options, lambda _: None, records.append)
    if refused := [record.patient for record in records if record.grade is None]:
        sys.exit(f"{len(refused)} patients were refused, {refused[0]} first")
    columns = {
        name: found(
            name, [record for record, known in zip(records, cohort.grades, strict=True) if known == index], manifest
        )
        for index, name in enumerate(CLASSES)
        if index in cohort.grades
    }
    rows = [(what, *(column[what] for column in columns.values())) for what in next(iter(columns.values()))]
    title = f"Coverage of the {1 - manifest.conformal.rate:.0%} conformal sets"
    report(title, ("of each grade", *columns), rows, given.out)


if __name__ == "__main__":
    main()
