"""What `grade adapt` brings at another site, by the number of local patients.

    python -m benchmarks.adapt MODEL COHORT

Local patients are drawn from the cohort many times; everything is judged on the others. Images are read once. The peer
is the closed test of Vergouwe et al. 2017 between no change, a new intercept, and a new intercept and slope.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import chi2

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
from toolkit.evaluation.logistic import fit_logistic
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
        "log_loss": log_loss(logit, grade, calibration.a, calibration.b),
    }


def log_loss(logit, grade, a, b):
    """Mean of the patients."""
    z = a * logit + b
    return float((np.logaddexp(0, z) - grade * z).mean())


def closed_test(logit, grade, parent):
    """Slope and intercept by the closed test at 5 %."""
    z = parent.a * logit + parent.b
    columns = np.column_stack([np.ones_like(z), z])
    shift = fit_logistic(columns[:, :1], grade.astype(float), z).weights[0]
    start, steep = fit_logistic(columns, grade.astype(float)).weights
    fits = [(parent.a, parent.b), (parent.a, parent.b + shift), (steep * parent.a, steep * parent.b + start)]
    kept, moved, free = (len(z) * log_loss(logit, grade, *fit) for fit in fits)
    if chi2.sf(2 * (kept - free), 2) >= 0.05:
        return fits[0]
    return fits[1 if chi2.sf(2 * (moved - free), 1) >= 0.05 else 2]


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
        rows = []
        for _ in range(given.draws):
            chosen = draw(rng, grade, count)
            others = np.setdiff1d(np.arange(len(grade)), chosen)
            calibration, conformal, update = update_calibration(logit[chosen], grade[chosen], parent, parent.rule)
            found_here = figures(logit[others], grade[others], calibration, conformal)
            peer = closed_test(logit[chosen], grade[chosen], parent)
            answer = expit(peer[0] * logit[others] + peer[1])
            found_here |= {"shift": update.shift, "stretch": update.slope}
            found_here |= {"off": abs(np.log(found_here["oe"]))}
            found_here |= {"peer_off": abs(np.log(observed_expected(grade[others], answer)[0]))}
            rows.append(found_here | {"peer_log_loss": log_loss(logit[others], grade[others], *peer)})
        found[str(count)] = {key: round(float(np.nanmean([row[key] for row in rows])), 3) for key in rows[0]}
    keep(found, given.out)


if __name__ == "__main__":
    main()
