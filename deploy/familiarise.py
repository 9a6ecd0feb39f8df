"""What a model counts as familiar, learned from its training and validation patients at export."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from threadpoolctl import threadpool_limits

from deploy.reader import reader
from deploy.runtimes import Array, Runtime
from toolkit.config import Grid
from toolkit.data.patients import Cohort
from toolkit.errors import ModelError
from toolkit.evaluation.conformal import upper_limit
from toolkit.evaluation.familiarity import DISTANCE_RATE, IMAGE_RATE, Familiarity, FeatureSpace, fit_bounds

WORKERS = 2  # reading threads; the runtime needs the other cores

_Float = NDArray[np.float64]


def learn_familiarity(
    runtime: Runtime, grid: Grid, training: Cohort, validation: Cohort, on_stage: Callable[[str], None]
) -> tuple[Familiarity, FeatureSpace]:
    """Limits of both tests, and the space that distances are measured in.

    Args:
        runtime: of the exported network, in fp32.
        grid: of its scans.
        training: at least two patients: they give the space.
        validation: they give the limit of the distance.
        on_stage: called with what begins, in a few words.

    Raises:
        ModelError: a patient is gone or refused.
    """
    near, usual = _seen(runtime, grid, training, "training", on_stage)
    other, checked = _seen(runtime, grid, validation, "validation", on_stage)
    names = tuple(usual[0])
    space = fit_space(near)
    familiarity = Familiarity(
        distance_rate=DISTANCE_RATE,
        image_rate=IMAGE_RATE,
        training=len(training),
        validation=len(validation),
        distance=upper_limit(space.distance(other), DISTANCE_RATE),
        bounds=fit_bounds(_table(usual + checked, names), names, IMAGE_RATE),
    )
    return familiarity, space


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


def _seen(
    runtime: Runtime, grid: Grid, cohort: Cohort, name: str, on_stage: Callable[[str], None]
) -> tuple[NDArray[np.float32], list[dict[str, float]]]:
    """Features (N, F) and image statistics of a cohort."""
    features: list[Array] = []
    statistics: list[dict[str, float]] = []
    with threadpool_limits(1, user_api="blas"), reader(cohort.patients, grid, WORKERS, edit=None) as reads:
        while (read := reads.take()) is not None:
            on_stage(f"what is familiar: {name} patient {len(features) + 1} of {len(cohort)}")
            if read.scan is None:
                raise ModelError(
                    f"the export needs {name} patient {read.patient.id}, which is refused: {read.reason};"
                    f" its folder was {read.patient.folder}."
                )
            features.append(runtime.infer(read.scan.data[None]).features[0])
            statistics.append(read.scan.statistics)
    return np.stack(features), statistics


def _table(statistics: list[dict[str, float]], names: tuple[str, ...]) -> _Float:
    return np.array([[one[name] for name in names] for one in statistics])
