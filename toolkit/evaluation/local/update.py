"""How much of a calibration to change at a site: nothing, its intercept, or intercept and slope.

A closed test decides, so that few patients change little: first, does intercept with slope fit better than no change
(two degrees of freedom)? If so, does it fit better than the intercept alone (one)? Each at 5 %, and the whole keeps 5 %
of false changes. Fits use Platt's smoothed targets, tests the grades as they are.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import chi2

from toolkit.arrays import Float64, Int64
from toolkit.data.patients import CLASSES
from toolkit.errors import CohortError
from toolkit.evaluation.calibration import Calibration, sigmoid
from toolkit.evaluation.calibration_fit import choose_threshold, threshold_limits
from toolkit.evaluation.conformal import Conformal, fit_conformal
from toolkit.evaluation.logistic import fit_logistic

LEVEL = 0.05  # of each test
FEWEST = 9  # patients of each grade: fewer give no conformal limit at 90 %
FOLDS = 10

Kind = Literal["none", "intercept", "slope"]


class Update(NamedTuple):
    """What was chosen.

    Attributes:
        kind: what changed.
        a: new slope of the logit.
        b: new intercept.
        p_update: that no change is needed.
        p_slope: that the intercept alone is enough.
    """

    kind: Kind
    a: float
    b: float
    p_update: float
    p_slope: float


class CrossFitted(NamedTuple):
    """What patients get from fits that did not see them.

    Attributes:
        probability: (N,) of HGG.
        decided: bool (N,), HGG by the threshold of the fit.
        covered: bool (N,), whether the set of the fit holds the true grade.
    """

    probability: Float64
    decided: np.ndarray[tuple[int], np.dtype[np.bool_]]
    covered: np.ndarray[tuple[int], np.dtype[np.bool_]]


def choose_update(logit: Float64, grade: Int64, parent: Calibration) -> Update:
    """The smallest change of a calibration that local patients ask for.

    Args:
        logit: (N,) HGG minus LGG.
        grade: (N,) 0 LGG, 1 HGG; both are there.
        parent: the calibration in use.

    Raises:
        CohortError: the logits do not rank HGG above LGG.

    Source: Vergouwe et al. 2017, "A closed testing procedure to select an appropriate method for updating prediction
    models"; Steyerberg et al. 2004; Platt 1999 (smoothed targets).
    """
    if logit[grade == 1].mean() <= logit[grade == 0].mean():
        raise CohortError(
            "the model ranks the grades of these patients the wrong way round or not at all: no calibration helps; "
            "look at the labels, and do not use the model here."
        )
    z = parent.a * logit + parent.b
    centre, scale = float(z.mean()), float(max(z.std(), 1e-9))
    ones, whole = np.ones((len(z), 1)), np.column_stack([np.ones_like(z), (z - centre) / scale])
    kept = _loss(z, grade)
    if parted(logit, grade):  # no finite slope fits grades that a threshold parts: the intercept alone can be asked for
        shift = fit_logistic(ones, grade.astype(float), z).weights[0]
        p_update, p_slope = float(chi2.sf(2 * (kept - _loss(z + shift, grade)), 1)), 1.0
    else:
        shift = fit_logistic(ones, grade.astype(float), z).weights[0]
        moved, free = _loss(z + shift, grade), _loss(whole @ fit_logistic(whole, grade.astype(float)).weights, grade)
        p_update, p_slope = float(chi2.sf(2 * (kept - free), 2)), float(chi2.sf(2 * (moved - free), 1))
    if p_update >= LEVEL:
        return Update("none", parent.a, parent.b, p_update, p_slope)
    target = _smoothed(grade)
    if p_slope >= LEVEL:
        shift = fit_logistic(ones, target, z).weights[0]
        return Update("intercept", parent.a, parent.b + float(shift), p_update, p_slope)
    start, steep = fit_logistic(whole, target).weights
    a = float(steep / scale * parent.a)
    b = float(start + steep * (parent.b - centre) / scale)
    return Update("slope", a, b, p_update, p_slope)


def update_calibration(
    logit: Float64, grade: Int64, parent: Calibration, rule: str
) -> tuple[Calibration, Conformal, Update]:
    """Calibration, threshold and conformal limits learned from local patients.

    Args:
        logit: (N,) HGG minus LGG.
        grade: (N,) 0 LGG, 1 HGG.
        parent: the calibration in use.
        rule: of the threshold.

    Raises:
        CohortError: as `choose_update`.
    """
    update = choose_update(logit, grade, parent)
    probability = sigmoid(update.a * logit + update.b)
    threshold, reached = choose_threshold(grade, probability, rule)
    notes = () if reached else (f"No threshold inside (0, 1) reaches {rule}; the most sensitive one was taken.",)
    calibration = Calibration(
        method=parent.method if update.kind == "none" else "platt",
        a=update.a,
        b=update.b,
        threshold=threshold,
        threshold_limits=threshold_limits(grade, probability, rule),
        rule=rule,
        cases={name: int((grade == c).sum()) for c, name in enumerate(CLASSES)},
        notes=notes,
    )
    return calibration, fit_conformal(calibration.probability(logit), grade), update


def cross_fitted(logit: Float64, grade: Int64, parent: Calibration, rule: str) -> CrossFitted:
    """Every patient judged by calibration, threshold and limits that were learned without the patient.

    Args:
        logit: (N,) HGG minus LGG.
        grade: (N,) 0 LGG, 1 HGG.
        parent: the calibration in use.
        rule: of the threshold.

    Raises:
        CohortError: as `choose_update`.
    """
    fold = _folds(grade)
    probability = np.empty(len(logit))
    decided, covered = np.zeros(len(logit), np.bool_), np.zeros(len(logit), np.bool_)
    for number in range(fold.max() + 1):
        inside, outside = fold != number, np.flatnonzero(fold == number)
        update = choose_update(logit[inside], grade[inside], parent)
        known = sigmoid(update.a * logit[inside] + update.b)
        threshold, _ = choose_threshold(grade[inside], known, rule)
        limits = fit_conformal(known, grade[inside])
        probability[outside] = sigmoid(update.a * logit[outside] + update.b)
        decided[outside] = probability[outside] >= threshold
        covered[outside] = [CLASSES[grade[i]] in limits.grades(float(probability[i])) for i in outside]
    return CrossFitted(probability, decided, covered)


def parted(logit: Float64, grade: Int64) -> bool:
    """Whether some threshold parts the grades without an error."""
    return float(logit[grade == 0].max()) <= float(logit[grade == 1].min())


def _folds(grade: Int64) -> Int64:
    """A fold (N,) for each patient, every grade dealt evenly; as many as the smaller grade has patients, at most 10."""
    count = min(FOLDS, int(np.bincount(grade, minlength=2).min()))
    fold, rng = np.zeros(len(grade), np.int64), np.random.default_rng(0)
    for c in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(grade == c))
        fold[members] = np.arange(len(members)) % count
    return fold


def _smoothed(grade: Int64) -> Float64:
    n0, n1 = np.bincount(grade, minlength=2)
    target: Float64 = np.where(grade == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    return target


def _loss(z: Float64, grade: Int64) -> float:
    return float((np.logaddexp(0, z) - grade * z).sum())
