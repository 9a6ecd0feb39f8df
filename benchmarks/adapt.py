"""What `grade adapt` brings at another site, by the number of local patients.

    python -m benchmarks.adapt MODEL COHORT

Local patients are drawn from the cohort many times; everything is judged on the others. Images are read once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.common import arguments, keep
from deploy.life.look import known_among, look
from deploy.model.folder import open_model
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from toolkit.data.labels import read_cohort
from toolkit.data.patients import CLASSES
from toolkit.evaluation.clinical import calibration_line
from toolkit.evaluation.conformal import Conformal
from toolkit.evaluation.local.precision import observed_expected
from toolkit.evaluation.local.update import FEWEST, update_calibration
from toolkit.evaluation.metrics import auc


def figures(logit, grade, calibration, conformal: Conformal) -> dict[str, float]:
    """Of patients whom nothing was learned from."""
    probability = calibration.probability(logit)
    covered = np.array(
        [CLASSES[g] in conformal.grades(float(p)) for g, p in zip(grade, probability, strict=True)], np.bool_
    )
    ratio, low, high = observed_expected(grade, probability)
    (line, _, _), (slope, slope_low, slope_high) = calibration_line(grade, probability)
    return {
        "auc": auc(grade, probability),
        "oe": ratio,
        "oe_holds_1": low <= 1 <= high,
        "intercept": line,
        "slope": np.nan if slope is None else slope,
        "slope_holds_1": slope is not None and slope_low <= 1 <= slope_high,
        "lgg_covered": covered[grade == 0].mean(),
        "hgg_covered": covered[grade == 1].mean(),
        "brier": float(((probability - grade) ** 2).mean()),
    }


def draw(rng, grade, count):
    """Positions of local patients, at the cohort's mix, with the fewest of each grade that adapting takes."""
    while True:
        chosen = rng.choice(len(grade), count, replace=False)
        if np.bincount(grade[chosen], minlength=2).min() >= FEWEST:
            return chosen


def main() -> None:
    given = arguments(
        __doc__,
        ("model", {"type": Path}),
        ("cohort", {"type": Path}),
        ("--counts", {"type": int, "nargs": "+", "default": [30, 60, 120]}),
        ("--draws", {"type": int, "default": 100}),
    )
    model, cohort = open_model(given.model), read_cohort(given.cohort, None)
    runtime = open_runtime(model, Choice("onnx", "cpu", "fp32"))
    seen, refused = look(model, runtime, cohort.patients, 0, lambda _: None)
    if model.manifest.people and known_among(model.manifest.people, seen):
        raise SystemExit("some of these patients were in the training")
    logit, grade = np.array([one.logit for one in seen]), cohort.grade_array
    if refused:
        raise SystemExit(f"{len(refused)} patients were refused")
    parent = model.manifest.calibration
    found = {"patients": dict(zip(CLASSES, np.bincount(grade, minlength=2).tolist(), strict=True))}
    found["parent"] = figures(logit, grade, parent, model.manifest.conformal)
    rng = np.random.default_rng(0)
    for count in given.counts:
        rows, kinds = [], []
        for _ in range(given.draws):
            chosen = draw(rng, grade, count)
            others = np.setdiff1d(np.arange(len(grade)), chosen)
            calibration, conformal, update = update_calibration(logit[chosen], grade[chosen], parent, parent.rule)
            rows.append(figures(logit[others], grade[others], calibration, conformal))
            kinds.append(update.kind)
        found[str(count)] = {key: round(float(np.nanmean([row[key] for row in rows])), 3) for key in rows[0]}
        found[str(count)]["updates"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    keep(found, given.out)


if __name__ == "__main__":
    main()
