"""How many local patients it takes to know a calibration, and how well a fit matches known grades, with intervals."""

from __future__ import annotations

from math import ceil, exp, log, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.stats import binomtest, norm

from toolkit.arrays import Float64, Int64
from toolkit.evaluation.calibration import sigmoid
from toolkit.evaluation.clinical import CERTAINTY

Triple: TypeAlias = tuple[float | None, float | None, float | None]

_Z = float(norm.ppf(0.975))


class Needed(NamedTuple):
    """How many patients give a 95 % interval of a width.

    Attributes:
        figure: what is to be known.
        width: how far the interval may reach, in words.
        patients: of both grades together, at this share of HGG.
    """

    figure: str
    width: str
    patients: int


def observed_expected(grade: Int64, probability: Float64) -> Triple:
    """HGG found over HGG expected, with its 95 % interval on the log scale; undefined without an HGG.

    Args:
        grade: (N,) 0 LGG, 1 HGG.
        probability: (N,) of HGG, 0 to 1.

    Source: Debray et al. 2017, "A guide to systematic review and meta-analysis of prediction model performance".
    """
    share, expected = float(grade.mean()), float(probability.mean())
    if share == 0 or expected == 0:
        return None, None, None
    spread = _Z * sqrt((1 - share) / (len(grade) * share))
    ratio = share / expected
    return ratio, ratio * exp(-spread), ratio * exp(spread)


def proportion(hits: int, count: int) -> Triple:
    """A share with Wilson's 95 % interval; undefined of nobody."""
    if not count:
        return None, None, None
    limits = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return hits / count, float(limits.low), float(limits.high)


def patients_for_ratio(share: float, factor: float) -> int:
    """Patients for an interval of O:E from 1 / factor to factor.

    Args:
        share: of HGG, inside (0, 1).
        factor: above 1.

    Source: Riley et al. 2021, "Minimum sample size for external validation of a clinical prediction model with a binary
    outcome".
    """
    return ceil((1 - share) / share * (_Z / log(factor)) ** 2)


def patients_for_slope(probability: Float64, half: float) -> int | None:
    """Patients for an interval of the calibration slope of 1 +- half, if new patients are like these.

    Args:
        probability: (N,) of HGG; taken for right.
        half: above 0.

    Returns:
        None where the probability is the same for all.

    Source: Riley et al. 2021 (Fisher's information of intercept and slope).
    """
    sure = np.clip(probability, CERTAINTY, 1 - CERTAINTY)
    z = np.log(sure / (1 - sure))
    weight = sigmoid(z) * (1 - sigmoid(z))
    one, cross, square = weight.mean(), (weight * z).mean(), (weight * z * z).mean()
    determinant = one * square - cross**2
    if determinant <= 1e-12:
        return None
    return ceil(float(one / determinant) * (_Z / half) ** 2)


def patients_for_coverage(rate: float, half: float, share: float) -> int:
    """Patients of both grades for an interval of each grade's coverage of 1 - rate +- half.

    Args:
        rate: of patients whose set lacks their grade.
        half: above 0.
        share: of HGG, inside (0, 1); the rarer grade decides.
    """
    return ceil(rate * (1 - rate) * (_Z / half) ** 2 / min(share, 1 - share))


def needed(grade: Int64, probability: Float64, rate: float) -> tuple[Needed, ...]:
    """What a site would need, at its share of HGG and with its spread of answers.

    Args:
        grade: (N,) 0 LGG, 1 HGG; both are there.
        probability: (N,) of HGG.
        rate: of the conformal sets.
    """
    share = float(grade.mean())
    rows = [
        Needed("O:E", f"{1 / factor:.2f} to {factor:.2f}", patients_for_ratio(share, factor)) for factor in (1.5, 1.25)
    ]
    for half in (0.5, 0.25):
        count = patients_for_slope(probability, half)
        if count is not None:
            rows.append(Needed("calibration slope", f"{1 - half:.2f} to {1 + half:.2f}", count))
    rows += [
        Needed("coverage of each grade", f"{100 * (1 - rate - half):.0f} to {100 * (1 - rate + half):.0f} %", count)
        for half in (0.1, 0.05)
        if (count := patients_for_coverage(rate, half, share))
    ]
    return tuple(rows)
