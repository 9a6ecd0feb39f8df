"""How a model's answers fit the known grades of some patients, as one record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploy.life.look import Looked
from deploy.model.origin import Fit
from toolkit.arrays import Float64, Int64
from toolkit.data.patients import CLASSES
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.clinical import calibration_line, delong
from toolkit.evaluation.conformal import Conformal
from toolkit.evaluation.familiarity import Familiarity, FeatureSpace
from toolkit.evaluation.local.precision import observed_expected, proportion
from toolkit.evaluation.local.update import CrossFitted


def fit_of(logit: Float64, grade: Int64, found: CrossFitted, strange: tuple[int, int] | None) -> Fit:
    """Every figure of some answers.

    Args:
        logit: (N,) HGG minus LGG; gives the AUC.
        grade: (N,) 0 LGG, 1 HGG.
        found: probability, decision and set of each patient.
        strange: how many were called unfamiliar, of how many; None: not known.
    """
    line, slope = calibration_line(grade, found.probability)
    of = {name: grade == c for c, name in enumerate(CLASSES)}
    right = found.decided == (grade == 1)
    return Fit(
        auc=delong(logit[grade == 0], logit[grade == 1]),
        intercept=line,
        slope=slope,
        observed_expected=observed_expected(grade, found.probability),
        sensitivity=proportion(int(right[of["HGG"]].sum()), int(of["HGG"].sum())),
        specificity=proportion(int(right[of["LGG"]].sum()), int(of["LGG"].sum())),
        coverage={
            name: proportion(int(found.covered[members].sum()), int(members.sum())) for name, members in of.items()
        },
        unfamiliar=proportion(*strange) if strange else (None, None, None),
    )


def answered(logit: Float64, grade: Int64, calibration: Calibration, conformal: Conformal) -> CrossFitted:
    """What a finished model says of patients with known grades.

    Args:
        logit: (N,) HGG minus LGG.
        grade: (N,) 0 LGG, 1 HGG.
        calibration: the model's.
        conformal: the model's.
    """
    probability = calibration.probability(logit)
    sets = [conformal.grades(float(p)) for p in probability]
    covered = np.array([CLASSES[g] in grades for g, grades in zip(grade, sets, strict=True)], np.bool_)
    return CrossFitted(probability, probability >= calibration.threshold, covered)


def count_unfamiliar(familiarity: Familiarity, space: FeatureSpace, patients: Sequence[Looked]) -> int:
    """How many patients a model calls unfamiliar, by distance or by an image statistic."""
    distances = space.distance(np.stack([one.features for one in patients]))
    return sum(
        bool(familiarity.outside(one.statistics))
        or (familiarity.distance is not None and not d <= familiarity.distance)
        for one, d in zip(patients, distances, strict=True)
    )
