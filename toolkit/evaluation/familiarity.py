"""Is a scan like those of the training? Two tests, each wrong about one familiar patient in twenty.

Features: Mahalanobis distance of the network's pooled features from the training patients'. Images: plain statistics,
each within limits. Both limits are split-conformal: centre and spread come from the training patients, the limit from
the validation patients, so that the rate of false alarms holds for any distribution. NumPy only: prediction imports it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from toolkit.errors import ModelError
from toolkit.evaluation.conformal import upper_limit

RATE = 0.05  # of false alarms, of each test
TAIL = 0.02  # of the training patients beyond either end of what counts as the usual range
LEAST_SPREAD = 0.02  # of the centre: a statistic that is the same in everybody may still differ by as much

_Float = NDArray[np.float64]
_FILE = ("mean", "components", "variances", "floor")


class Bound(BaseModel):
    """The range of one image statistic, in its own unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    low: float
    high: float


class Familiarity(BaseModel):
    """Limits of both tests.

    Attributes:
        rate: of false alarms, of each test, 0 to 1.
        training: patients that centre and spread come from.
        validation: patients that the limits come from; fewer than 1 / rate - 1 give none.
        distance: largest familiar Mahalanobis distance; None: too few patients.
        bounds: of each image statistic; empty: too few patients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(gt=0, lt=1)
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

    mean: _Float
    components: _Float
    variances: _Float
    floor: float

    def distance(self, features: ArrayLike) -> _Float:
        """Mahalanobis distance from the mean; no unit.

        Args:
            features: (B, F).

        Returns:
            float64 (B,); NaN where a feature is NaN.
        """
        away = np.asarray(features, np.float64) - self.mean
        along = away @ self.components.T  # (B, R)
        rest = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        distance: _Float = np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.floor)
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

    @classmethod
    def load(cls, path: Path) -> FeatureSpace:
        """Read what `save` wrote.

        Raises:
            ModelError: it is something else.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                mean, components, variances, floor = (np.asarray(file[name], np.float64) for name in _FILE)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path} cannot be read: {error}; export the model again.") from None
        return cls(mean, components, variances, float(floor))


def fit_bounds(training: ArrayLike, validation: ArrayLike, names: tuple[str, ...], rate: float) -> tuple[Bound, ...]:
    """Ranges of the image statistics, so wide that a familiar patient leaves any of them with a chance of `rate`.

    A patient's score is the largest distance from a statistic's median, in units of the distance from there to the end
    of the usual range on that side. One limit on this score, from the validation patients, scales all ranges.

    Args:
        training: (N, K) statistics.
        validation: (M, K) of other patients.
        names: of the K statistics.
        rate: of false alarms, 0 to 1.

    Returns:
        K bounds; none where M is too small.
    """
    training, validation = np.asarray(training, np.float64), np.asarray(validation, np.float64)
    low, centre, high = np.quantile(training, [TAIL, 0.5, 1 - TAIL], axis=0)  # (K,)
    least = LEAST_SPREAD * np.abs(centre) + 1e-12
    below, above = np.maximum(centre - low, least), np.maximum(high - centre, least)
    away = validation - centre
    score = np.maximum(away / above, -away / below).max(axis=1)  # (M,)
    limit = upper_limit(score, rate)
    if limit is None:
        return ()
    ends = zip(names, centre - limit * below, centre + limit * above, strict=True)
    return tuple(Bound(name=name, low=float(first), high=float(last)) for name, first, last in ends)
