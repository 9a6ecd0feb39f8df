"""Is a scan like those of the training? Two tests, each with a rate of false alarms.

Features: Mahalanobis distance of the network's pooled features from the training patients'. The limit comes from the
validation patients, since the network knows the others by heart: a tolerance limit, whose rate holds for the model at
hand (`familiarity_fit.py`). Images: plain statistics, each within limits, from all patients, since no network looks at
them; conformal, so that their rate holds on average over cohorts. NumPy only: prediction imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from toolkit.arrays import Float64
from toolkit.evaluation.conformal import upper_limit
from toolkit.frozen import FrozenFinite

DISTANCE_RATE = 0.1  # of false alarms, at most
DISTANCE_CONFIDENCE = 0.95  # that the limit learned keeps this rate
IMAGE_RATE = 0.025
FOLDS = 10
TAIL = 0.02  # of the patients beyond either end of what counts as the usual range
LEAST_SPREAD = 0.02  # of the centre: a statistic that is the same in all patients may still differ by as much
# Volumes, ml, that are 0 in most and large in a few: judged as log10(floor + volume), so that what is below the floor
# hardly counts and a few large ones do not widen all other ranges. They may differ by the floor in any case.
FLOORS = {"scattered": 1.0}


class Bound(FrozenFinite):
    """The range of one image statistic, in its own unit."""

    name: str
    low: float
    high: float


class Familiarity(FrozenFinite):
    """Limits of both tests.

    Attributes:
        distance_rate: of false alarms by distance, at most, 0 to 1.
        distance_confidence: that validation patients gave a limit which keeps that rate, 0 to 1.
        distance_by: `rank`, for any distribution, or `tail`, for fewer patients; None without a limit.
        image_rate: of false alarms by image statistics, on average over cohorts, 0 to 1.
        training: patients that the feature space comes from; with the validation patients, the bounds.
        validation: patients that the limit of the distance comes from.
        distance: largest familiar Mahalanobis distance; None: too few patients.
        bounds: of each image statistic; empty: too few patients.
    """

    distance_rate: float = Field(gt=0, lt=1)
    distance_confidence: float = Field(gt=0, lt=1)
    distance_by: Literal["rank", "tail"] | None
    image_rate: float = Field(gt=0, lt=1)
    training: int
    validation: int
    distance: float | None
    bounds: tuple[Bound, ...]

    @property
    def known(self) -> bool:
        """Whether there were enough patients for limits."""
        return self.distance is not None and bool(self.bounds)

    def outside(self, statistics: Mapping[str, float]) -> tuple[Bound, ...]:
        """The bounds that a patient breaks; one whose statistic is missing or not finite counts as broken."""
        return tuple(
            bound for bound in self.bounds if not bound.low <= statistics.get(bound.name, np.nan) <= bound.high
        )


@dataclass(frozen=True)
class FeatureSpace:
    """A Gaussian of the features, its covariance held as few directions and one variance for all others.

    Attributes:
        mean: float64 (F,).
        components: float64 (R, F), orthonormal rows.
        variances: float64 (R,) along the components.
        floor: variance along every other direction, above 0.
    """

    mean: Float64
    components: Float64
    variances: Float64
    floor: float

    def distance(self, features: ArrayLike) -> Float64:
        """Mahalanobis distance from the mean; no unit.

        Args:
            features: (B, F).

        Returns:
            float64 (B,); NaN where a feature is NaN.
        """
        away = np.asarray(features, np.float64) - self.mean
        along = away @ self.components.T  # (B, R)
        rest = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        distance: Float64 = np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.floor)
        return distance

    def save(self, path: Path) -> None:
        """Write as arrays without pickle, the large ones in float32."""
        np.savez_compressed(
            path,
            mean=self.mean,
            components=self.components.astype(np.float32),
            variances=self.variances,
            floor=np.float64(self.floor),
        )


def fit_bounds(statistics: ArrayLike, names: tuple[str, ...], rate: float) -> tuple[Bound, ...]:
    """Ranges of the image statistics, so wide that a familiar patient leaves any of them with a chance near `rate`.

    A patient's score is the largest distance from a statistic's median, in units of the distance from there to the end
    of the usual range on that side. Every patient is scored against the ranges of the other folds' patients; one limit
    on these scores scales all ranges.

    Args:
        statistics: (N, K).
        names: of the K statistics.
        rate: of false alarms, 0 to 1.

    Returns:
        K bounds; none where N is below 1 / rate - 1.

    Source: Vovk 2015, "Cross-conformal predictors".
    """
    floors = np.array([FLOORS.get(name, 0.0) for name in names])
    table = _judged(np.asarray(statistics, np.float64), floors)
    fold = np.arange(len(table)) % FOLDS
    score = np.zeros(len(table))
    for number in range(min(FOLDS, len(table) - 1)):
        centre, below, above = _usual(table[fold != number], floors)
        away = table[fold == number] - centre
        score[fold == number] = np.maximum(away / above, -away / below).max(axis=1)
    limit = upper_limit(score, rate)
    if limit is None:
        return ()
    centre, below, above = _usual(table, floors)
    low, high = (_in_own_unit(end, floors) for end in (centre - limit * below, centre + limit * above))
    return tuple(Bound(name=name, low=float(a), high=float(b)) for name, a, b in zip(names, low, high, strict=True))


def _judged(table: Float64, floors: Float64) -> Float64:
    """The statistics (N, K) on the scale that ranges are learned on; a floor of 0 leaves a column as it is."""
    return np.where(floors > 0, np.log10(np.where(floors > 0, table + floors, 1)), table)


def _in_own_unit(ends: Float64, floors: Float64) -> Float64:
    """The inverse of `_judged` for K ends of ranges; no volume is below 0, and none is infinite."""
    volumes = 10 ** np.clip(np.where(floors > 0, ends, 0), -12, 12) - floors
    return np.where(floors > 0, np.maximum(volumes, 0), ends)


def _usual(table: Float64, floors: Float64) -> tuple[Float64, Float64, Float64]:
    """Median (K,) of each statistic and the distances, above 0, from there to both ends of its usual range."""
    low, centre, high = np.quantile(table, [TAIL, 0.5, 1 - TAIL], axis=0)
    least = np.where(floors > 0, np.log10(2), LEAST_SPREAD * np.abs(centre) + 1e-12)
    return centre, np.maximum(centre - low, least), np.maximum(high - centre, least)
