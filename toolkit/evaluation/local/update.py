"""How much of a calibration to change at a site: its intercept and its slope, the less the fewer patients there are.

A penalised logistic regression of the local grades on the parent's answer: normal priors keep the shift of the log
odds near 0 and the factor of the slope near 1. Few patients change little, and no test has to tell a shift from chance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from toolkit.arrays import Float64, Int64
from toolkit.data.patients import CLASSES
from toolkit.errors import CohortError
from toolkit.evaluation.calibration import Calibration, sigmoid
from toolkit.evaluation.calibration_fit import choose_threshold, threshold_limits
from toolkit.evaluation.conformal import Conformal, fit_conformal
from toolkit.evaluation.logistic import fit_logistic
from toolkit.evaluation.metrics import auc

SHIFT = 1.0  # standard deviation of the prior of the shift, in log odds
SLOPE = 0.5  # of the factor of the slope
FEWEST = 9  # patients of each grade: fewer give no conformal limit at 90 %
FOLDS = 10


class Update(NamedTuple):
    """What was learned.

    Attributes:
        a: new slope of the logit.
        b: new intercept.
        shift: of the log odds, at the mean of the local patients.
        slope: new slope, in units of the parent's.
    """

    a: float
    b: float
    shift: float
    slope: float


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


def fit_update(logit: Float64, grade: Int64, parent: Calibration) -> Update:
    """The change of a calibration that local patients ask for.

    Args:
        logit: (N,) HGG minus LGG.
        grade: (N,) 0 LGG, 1 HGG; both are there.
        parent: the calibration in use.

    Raises:
        CohortError: the logits do not rank HGG above LGG.

    Source: Steyerberg et al. 2004, "Validation and updating of predictive logistic regression models: a study on sample
    size and shrinkage"; the prior in place of their shrinkage factor.
    """
    z = parent.a * logit + parent.b
    centre = float(z.mean())
    columns = np.column_stack([np.ones_like(z), z - centre])
    pull = np.array([SHIFT, SLOPE]) ** -2
    shift, steeper = fit_logistic(columns, grade.astype(float), z, pull).weights
    slope = float(1 + steeper)
    ranked = auc(grade, logit)
    if ranked is None or ranked <= 0.5 or slope <= 0:
        raise CohortError(
            "the model ranks the grades of these patients the wrong way round or not at all: no calibration helps; "
            "look at the labels, and do not use the model here."
        )
    return Update(slope * parent.a, float(slope * (parent.b - centre) + centre + shift), float(shift), slope)


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
        CohortError: as `fit_update`.
    """
    update = fit_update(logit, grade, parent)
    probability = sigmoid(update.a * logit + update.b)
    threshold, reached = choose_threshold(grade, probability, rule)
    notes = () if reached else (f"No threshold inside (0, 1) reaches {rule}; the most sensitive one was taken.",)
    calibration = Calibration(
        method="platt",
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
        CohortError: as `fit_update`.
    """
    fold = _folds(grade)
    probability = np.empty(len(logit))
    decided, covered = np.zeros(len(logit), np.bool_), np.zeros(len(logit), np.bool_)
    for number in range(fold.max() + 1):
        inside, outside = fold != number, np.flatnonzero(fold == number)
        update = fit_update(logit[inside], grade[inside], parent)
        known = sigmoid(update.a * logit[inside] + update.b)
        threshold, _ = choose_threshold(grade[inside], known, rule)
        limits = fit_conformal(known, grade[inside])
        probability[outside] = sigmoid(update.a * logit[outside] + update.b)
        decided[outside] = probability[outside] >= threshold
        covered[outside] = [CLASSES[grade[i]] in limits.grades(float(probability[i])) for i in outside]
    return CrossFitted(probability, decided, covered)


def _folds(grade: Int64) -> Int64:
    """A fold (N,) for each patient, every grade dealt evenly; as many as the smaller grade has patients, at most 10."""
    count = min(FOLDS, int(np.bincount(grade, minlength=2).min()))
    fold, rng = np.zeros(len(grade), np.int64), np.random.default_rng(0)
    for c in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(grade == c))
        fold[members] = np.arange(len(members)) % count
    return fold
