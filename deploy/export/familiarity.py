"""What a model counts as familiar, learned from its training and validation patients at export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from toolkit.arrays import Float32
from toolkit.evaluation.familiarity import (
    DISTANCE_CONFIDENCE,
    DISTANCE_RATE,
    IMAGE_RATE,
    Familiarity,
    FeatureSpace,
    fit_bounds,
)
from toolkit.evaluation.familiarity_fit import fit_space, tolerance_limit


class Seen(NamedTuple):
    """What is learned from one patient: features float32 (F,), the image statistics, and the images' digest."""

    features: Float32
    statistics: Mapping[str, float]
    content: str


def learn_familiarity(training: Sequence[Seen], validation: Sequence[Seen]) -> tuple[Familiarity, FeatureSpace]:
    """Limits of both tests, and the space that distances are measured in.

    Args:
        training: at least two patients: they give the space.
        validation: they give the limit of the distance.
    """
    names = tuple(training[0].statistics)
    space = fit_space(np.stack([one.features for one in training]))
    distances = space.distance(np.stack([one.features for one in validation]))
    limit, by = tolerance_limit(distances, DISTANCE_RATE, DISTANCE_CONFIDENCE)
    table = np.array([[one.statistics[name] for name in names] for one in (*training, *validation)])
    familiarity = Familiarity(
        distance_rate=DISTANCE_RATE,
        distance_confidence=DISTANCE_CONFIDENCE,
        distance_by=by,
        image_rate=IMAGE_RATE,
        training=len(training),
        validation=len(validation),
        distance=limit,
        bounds=fit_bounds(table, names, IMAGE_RATE),
    )
    return familiarity, space


def baseline(space: FeatureSpace, patients: Sequence[Seen]) -> dict[str, tuple[float, ...]]:
    """The `distance` and every image statistic of some patients, rising, so that no value tells whose it is.

    Args:
        space: that distances are measured in.
        patients: whom new ones are to be compared with; at least one.
    """
    distances = space.distance(np.stack([one.features for one in patients]))
    table = {name: [one.statistics[name] for one in patients] for name in patients[0].statistics}
    return {
        name: tuple(sorted(float(value) for value in values))
        for name, values in ({"distance": distances} | table).items()
    }
