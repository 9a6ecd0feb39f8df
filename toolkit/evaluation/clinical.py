"""What reporting guidelines ask for in addition to the metrics: DeLong's interval, calibration line, decision curve.

Each gives (value, low, high) with 95 % limits; None where it is undefined.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.stats import norm, rankdata

from toolkit.arrays import Float64, Int64
from toolkit.evaluation.logistic import fit_logistic

Triple: TypeAlias = tuple[float | None, float | None, float | None]

UNDEFINED: Triple = (None, None, None)
CERTAINTY = 1e-12  # a probability nearer to 0 or 1 counts as this: its logit would be infinite
_Z = float(norm.ppf(0.975))


class DecisionCurve(NamedTuple):
    """Net benefit of acting on HGG, per patient, for each threshold probability; all float64 (K,).

    Attributes:
        threshold: the probability at which acting and waiting are worth the same, inside (0, 1).
        model: who acts from this probability on.
        everyone: who acts on all.
    """

    threshold: Float64
    model: Float64
    everyone: Float64


def delong(lgg: Float64, hgg: Float64) -> Triple:
    """AUC with DeLong's interval, on the logit scale, so that it stays inside 0 to 1.

    Args:
        lgg: (n0,) scores.
        hgg: (n1,) scores; larger means HGG.

    Returns:
        Undefined with one class; without limits where a class has one patient or the AUC is 0 or 1.

    Source: DeLong, DeLong & Clarke-Pearson 1988; Sun & Xu 2014 (by ranks).
    """
    n0, n1 = len(lgg), len(hgg)
    if not n0 or not n1:
        return UNDEFINED
    together = rankdata(np.concatenate([hgg, lgg]))
    of_hgg = (together[:n1] - rankdata(hgg)) / n0  # (n1,) share of LGG below each HGG
    of_lgg = 1 - (together[n1:] - rankdata(lgg)) / n1  # (n0,) share of HGG above each LGG
    area = float(of_hgg.mean())
    if min(n0, n1) < 2 or not 0 < area < 1:
        return area, None, None
    deviation = float(np.sqrt(of_hgg.var(ddof=1) / n1 + of_lgg.var(ddof=1) / n0))
    centre, spread = np.log(area / (1 - area)), _Z * deviation / (area * (1 - area))
    return area, float(1 / (1 + np.exp(spread - centre))), float(1 / (1 + np.exp(-spread - centre)))


def calibration_line(grade: Int64, probability: Float64) -> tuple[Triple, Triple]:
    """Calibration-in-the-large and slope, with Wald intervals; 0 and 1 are perfect.

    Args:
        grade: (N,) 0 LGG, 1 HGG.
        probability: (N,) of HGG, 0 to 1.

    Returns:
        Intercept of a logistic fit whose slope is held at 1, and slope of a free fit. Both are undefined with one
        class, the slope also where the probability is the same for all or parts the grades without an error.

    Source: Cox 1958; Van Calster et al. 2019, "Calibration: the Achilles heel of predictive analytics".
    """
    if len(np.unique(grade)) < 2:
        return UNDEFINED, UNDEFINED
    sure = np.clip(probability, CERTAINTY, 1 - CERTAINTY)
    logit = np.log(sure / (1 - sure))
    ones = np.ones((len(logit), 1))
    intercept = _wald(ones, logit, grade, 0)
    lgg, hgg = logit[grade == 0], logit[grade == 1]
    if np.ptp(logit) < 1e-9 or lgg.max() <= hgg.min() or hgg.max() <= lgg.min():
        return intercept, UNDEFINED
    return intercept, _wald(np.column_stack([ones, logit]), np.zeros_like(logit), grade, 1)


def decision_curve(grade: Int64, probability: Float64) -> DecisionCurve:
    """Net benefit: share of true HGG minus share of false HGG times the odds of the threshold.

    Args:
        grade: (N,) 0 LGG, 1 HGG.
        probability: (N,) of HGG, 0 to 1.

    Source: Vickers & Elkin 2006.
    """
    threshold = np.arange(1, 100) / 100  # (K,)
    acts = probability >= threshold[:, None]  # (K, N)
    odds = threshold / (1 - threshold)
    model = (acts & (grade == 1)).mean(axis=1) - (acts & (grade == 0)).mean(axis=1) * odds
    share = float((grade == 1).mean())
    return DecisionCurve(threshold, model, share - (1 - share) * odds)


def _wald(columns: Float64, offset: Float64, grade: Int64, which: int) -> Triple:
    """One weight of a logistic regression, and its interval."""
    fit = fit_logistic(columns, grade.astype(np.float64), offset)
    half = _Z * float(np.sqrt(fit.covariance[which, which]))
    value = float(fit.weights[which])
    return value, value - half, value + half
