"""What is familiar, learned from features: their space, and a limit of the distance in it. SciPy and scikit-learn."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import beta, binom, gamma
from sklearn.covariance import ledoit_wolf

from toolkit.evaluation.familiarity import FeatureSpace

FEWEST = 10  # validation patients; five of them then show the tail

By = Literal["rank", "tail"]


def fit_space(features: NDArray[np.floating]) -> FeatureSpace:
    """Mean and shrunk covariance of features (N, F).

    The shrunk covariance is (1 - s) S + s m I with m the mean variance: N - 1 directions at most differ from s m, and
    only they are kept.

    Source: Ledoit & Wolf 2004; Lee et al. 2018 (Mahalanobis distance of features).
    """
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    away = features - mean
    # A feature that never moves must not make an infinite distance of rounding.
    floor_of_floor = 1e-6 * max(float((features**2).mean()), 1e-12)
    _, shrinkage = ledoit_wolf(away, assume_centered=True)
    average = float((away**2).mean())
    floor = max(shrinkage * average, floor_of_floor)
    _, sizes, rows = np.linalg.svd(away, full_matrices=False)  # (R,), (R, F)
    variances = (1 - shrinkage) * sizes**2 / len(features)
    used = variances > 1e-9 * floor
    return FeatureSpace(mean, rows[used], variances[used] + floor, floor)


def tolerance_limit(distances: NDArray[np.floating], rate: float, confidence: float) -> tuple[float | None, By | None]:
    """The limit that, with a given confidence, at most `rate` of the patients like these exceed.

    A conformal limit keeps its rate on average over validations; this one keeps it in nearly every single validation.
    Where N allows it, 29 at 0.1 and 0.95, it is the k-th largest distance, k as large as may be, for any distribution.
    For fewer it leans on the tail: beyond their median the logarithms are taken to fall off exponentially. The limit
    is exact for such a tail and cautious for any that falls faster (normal, or a mixture of two grades); a normal
    tolerance limit would be too small, since the logarithms are skewed. It is never below the largest distance:
    whatever the distribution, a share above `rate` is beyond with a chance of at most (1 - rate)^N.

    Args:
        distances: (N,), above 0, of patients drawn like the new ones.
        rate: 0 to 1.
        confidence: 0 to 1.

    Returns:
        The limit, and how it was found; None and None below 10 patients.

    Source: Wilks 1941, "Determination of sample sizes for setting tolerance limits" (rank); Hill 1975 and Weissman
    1978, "Estimation of parameters and large quantiles based on the k largest observations" (tail).
    """
    count, rising = len(distances), np.sort(np.asarray(distances, np.float64))
    if count < FEWEST:
        return None, None
    # The k-th largest fails where fewer than k of N lie in the outermost `rate`: P(Bin(N, rate) < k) <= 1 - confidence.
    if k := int(binom.ppf(1 - confidence, count, rate)):
        return float(rising[-k]), "rank"
    logs = np.log(np.maximum(rising, 1e-12))  # a network that gives every patient the same answer
    upper = count // 2
    start = logs[-upper - 1]
    excess = logs[-upper:].mean() - start
    return max(float(np.exp(start + _excesses(count, upper, rate, 1 - confidence) * excess)), float(rising[-1])), "tail"


@lru_cache
def _excesses(count: int, upper: int, rate: float, failing: float) -> float:
    """How many mean excesses beyond the start of an exponential tail the limit is.

    A share B of all patients is beyond the (upper + 1)-th largest of `count`, Beta(upper + 1, count - upper); of
    these, a share exp(-c G) is c mean excesses farther, with G the mean excess found over the true one, a mean of
    `upper` exponentials. The c at which B exp(-c G) exceeds the rate with a chance of `failing`.
    """
    share = beta(upper + 1, count - upper)

    def surplus(c: float) -> float:
        chance, _ = quad(lambda b: share.pdf(b) * gamma.cdf(upper * np.log(b / rate) / c, upper), rate, 1)
        return float(chance) - failing

    return float(brentq(surplus, 0.01, 1000))
