"""What a reader of a grade has to know in addition: is it sure, and is the scan like those that the network knows?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from deploy.model.folder import FAMILIARITY, Model
from deploy.model.manifest import Manifest
from deploy.model.untrusted import read_arrays
from deploy.runtime import Array
from toolkit.data.wording import DISTANCE, out_of_range
from toolkit.errors import ModelError
from toolkit.evaluation.conformal import Conformal, Singles, count_singles
from toolkit.evaluation.familiarity import Familiarity, FeatureSpace

SINGLE = "single grade"
UNCERTAIN = "uncertain"  # both grades are in the conformal set, or none, or not the one that was decided
UNFAMILIAR = "unfamiliar"
UNDETERMINED = "undetermined"  # the model cannot say: too few validation patients gave it no limits
VERDICTS = (UNFAMILIAR, UNCERTAIN, UNDETERMINED, SINGLE)  # whom to look at first; each needs a reader
CAUTION = "do not rely on the grade"


class Verdict(NamedTuple):
    """What was found about one patient.

    Attributes:
        word: one of the four above.
        sentence: why, and what follows; empty for a single grade.
        grades: the conformal set.
        distance: Mahalanobis distance of the features; None without statistics.
        outside: names of the image statistics out of their range.
    """

    word: str
    sentence: str
    grades: tuple[str, ...]
    distance: float | None
    outside: tuple[str, ...]


def single_grades(manifest: Manifest) -> dict[str, Singles]:
    """How often single grades were wrong among the model's validation patients; empty where nobody got one."""
    return count_singles(manifest.conformal, manifest.calibration.threshold, manifest.reference)


def wrong_before(grade: str, singles: Singles) -> str:
    """A sentence on how often single grades of one kind were wrong."""
    return (
        f"{singles.wrong} of {singles.answers} validation patients with {grade} as their single grade had the other"
        f" grade ({singles.wrong / singles.answers:.0%}, 95 % interval {singles.low:.0%} to {singles.high:.0%})."
    )


def read_space(model: Model) -> FeatureSpace:
    """The space that feature distances are measured in.

    Raises:
        ModelError: the file was altered, or holds something else.
    """
    features = model.manifest.outputs.features
    shapes = {"mean": (features,), "components": (None, features), "variances": (None,), "floor": ()}
    found = read_arrays(model.read(FAMILIARITY), shapes, str(model.folder / FAMILIARITY))
    variances, floor = found["variances"], float(found["floor"])
    if len(variances) != len(found["components"]) or floor <= 0 or (variances <= 0).any():
        raise ModelError(f"{model.folder / FAMILIARITY} holds variances that are none; export the model again.")
    return FeatureSpace(found["mean"], found["components"], variances, floor)


class Judge:
    """Gives verdicts by what the model carries.

    Args:
        model: its statistics are checked against their hash and loaded.
        missing: the modality that the judged patients lack; empty: none.

    Raises:
        ModelError: they were altered or cannot be read.
    """

    def __init__(self, model: Model, missing: str = "") -> None:
        manifest = model.manifest.lacking(missing)
        self._conformal: Conformal = manifest.conformal
        self._familiarity: Familiarity = manifest.out_of_distribution
        self._space = read_space(model)

    def verdict(self, grade: str, probability: float, features: Array, statistics: Mapping[str, float]) -> Verdict:
        """Judge one graded patient.

        Args:
            grade: as decided by the threshold.
            probability: P(HGG), 0 to 1.
            features: float32 (F,).
            statistics: of the images, `toolkit.data.statistics`.
        """
        grades = self._conformal.grades(probability)
        measured = float(self._space.distance(features[None])[0])
        outside, strange = self._strange(measured, statistics)
        distance = measured if np.isfinite(measured) else None
        if strange:
            word, why = UNFAMILIAR, f"unlike the training patients: {strange}"
        elif doubt := self._doubt(grade, grades):
            word, why = UNCERTAIN, doubt
        elif missing := self._missing():
            word, why = UNDETERMINED, missing
        else:
            return Verdict(SINGLE, "", grades, distance, outside)
        return Verdict(word, f"{why}; {CAUTION}", grades, distance, outside)

    def _strange(self, distance: float | None, statistics: Mapping[str, float]) -> tuple[tuple[str, ...], str]:
        broken = self._familiarity.outside(statistics)
        found = [
            out_of_range(bound.name, statistics.get(bound.name, np.nan), bound.low, bound.high) for bound in broken
        ]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        limit = self._familiarity.distance
        far = [f"{DISTANCE.name} is {distance:.3g}, usual up to {limit:.3g}"] if _beyond(distance, limit) else []
        return tuple(bound.name for bound in broken), "; ".join([*far, *found[:3]]) + more

    def _doubt(self, grade: str, grades: tuple[str, ...]) -> str:
        if self._conformal.missing:
            return ""
        level = f"{1 - self._conformal.rate:.0%}"
        if len(grades) == 2:
            return f"both grades are possible at {level}"
        if not grades:
            return f"neither grade is likely at {level}"
        return "" if grades == (grade,) else f"{grades[0]} alone is likely at {level}, but the threshold says {grade}"

    def _missing(self) -> str:
        if self._conformal.missing:
            few = " and ".join(f"{self._conformal.cases[name]} {name}" for name in self._conformal.missing)
            return f"too few validation patients to know how sure the grade is ({few})"
        if not self._familiarity.known:
            seen = f"{self._familiarity.training} for training, {self._familiarity.validation} for validation"
            return f"too few patients to know what is unfamiliar ({seen})"
        return ""


def _beyond(distance: float | None, limit: float | None) -> bool:
    return distance is not None and limit is not None and not distance <= limit  # NaN is beyond
