"""How sure a grade is: class-conditional split conformal prediction. NumPy only: prediction imports this.

Among patients of a grade, the share whose set lacks that grade is at most `rate`, whatever the network is worth, as
long as new patients are drawn like those of the validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from toolkit.arrays import Float64
from toolkit.data.patients import CLASSES
from toolkit.errors import GradeError
from toolkit.frozen import FrozenFinite

RATE = 0.1  # of each grade; with 15 LGG patients 0.1 is possible, 0.05 is not


class Conformal(FrozenFinite):
    """Limits of the probability from which on a grade is in a patient's set.

    Attributes:
        rate: share of each grade's patients whose set may lack it, 0 to 1.
        cases: patients per class that the limits rest on.
        hgg_from: HGG is in the set where P(HGG) is at least this; None: fewer than 1 / rate - 1 patients.
        lgg_to: LGG is in the set where P(HGG) is at most this; None: as above.
    """

    rate: float = Field(gt=0, lt=1)
    cases: dict[str, int]
    hgg_from: float | None = Field(ge=0, le=1)
    lgg_to: float | None = Field(ge=0, le=1)

    @property
    def missing(self) -> tuple[str, ...]:
        """Grades that had too few patients for a limit; such a grade is in every set."""
        limits = zip(CLASSES, (self.lgg_to, self.hgg_from), strict=True)
        return tuple(name for name, limit in limits if limit is None)

    def grades(self, probability: float) -> tuple[str, ...]:
        """The patient's set: none, one or both of the grades.

        Args:
            probability: P(HGG), 0 to 1.
        """
        inside = (
            self.lgg_to is None or probability <= self.lgg_to,
            self.hgg_from is None or probability >= self.hgg_from,
        )
        return tuple(name for name, there in zip(CLASSES, inside, strict=True) if there)


class Singles(NamedTuple):
    """Validation patients whose set held the decided grade alone, and how many of them are of the other grade.

    Attributes:
        answers: how many got this grade as their single one.
        wrong: how many of these are of the other grade.
        low: 95 % interval of the share that is wrong, 0 to 1 (Wilson).
        high: the other end.
    """

    answers: int
    wrong: int
    low: float
    high: float


def count_singles(
    conformal: Conformal, threshold: float, reference: Mapping[str, Sequence[float]]
) -> dict[str, Singles]:
    """How often a single grade was wrong among the validation patients.

    The limits rest on these same patients, so the share is a little too small.

    Args:
        conformal: limits.
        threshold: of the probability, HGG from here on.
        reference: grade -> P(HGG) of the validation patients of that grade.

    Returns:
        Decided grade -> counts; a grade that nobody got as a single one is left out.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    found = dict.fromkeys(CLASSES, (0, 0))
    for true, values in reference.items():
        for probability in values:
            decided = CLASSES[int(probability >= threshold)]
            if conformal.grades(probability) == (decided,):
                answers, wrong = found[decided]
                found[decided] = answers + 1, wrong + (true != decided)
    return {grade: Singles(*counts, *_wilson(*counts)) for grade, counts in found.items() if counts[0]}


def _wilson(answers: int, wrong: int) -> tuple[float, float]:
    share, z = wrong / answers, 1.959963984540054  # of 95 %
    middle = share + z**2 / (2 * answers)
    half = z * sqrt(share * (1 - share) / answers + z**2 / (4 * answers**2))
    low, high = (end / (1 + z**2 / answers) for end in (middle - half, middle + half))
    return max(low, 0.0) if wrong else 0.0, min(high, 1.0) if wrong < answers else 1.0


def fit_conformal(probability: ArrayLike, grade: ArrayLike, rate: float = RATE) -> Conformal:
    """Limits from patients that the network was not trained on.

    Args:
        probability: (N,) P(HGG), 0 to 1.
        grade: (N,) integers, 0 LGG, 1 HGG.
        rate: share of each grade that may be missed, 0 to 1.

    Raises:
        GradeError: lengths that differ, or a probability that is no number from 0 to 1.

    Source: Vovk 2012, "Conditional validity of inductive conformal predictors".
    """
    probability, grade = np.asarray(probability, np.float64), np.asarray(grade)
    if probability.shape != grade.shape or probability.ndim != 1:
        raise GradeError(
            f"probabilities have shape {probability.shape} and grades {grade.shape}; give one of each per patient."
        )
    if not ((probability >= 0) & (probability <= 1)).all():
        raise GradeError("a probability is no number from 0 to 1; grade the validation patients again.")
    lgg, hgg = probability[grade == 0], probability[grade == 1]
    highest = upper_limit(-hgg, rate)
    return Conformal(
        rate=rate,
        cases=dict(zip(CLASSES, (len(lgg), len(hgg)), strict=True)),
        hgg_from=None if highest is None else -highest,
        lgg_to=upper_limit(lgg, rate),
    )


def upper_limit(scores: Float64, rate: float) -> float | None:
    """The limit that a new score exceeds with a chance of at most `rate`.

    Args:
        scores: (N,) of patients drawn like the new one.
        rate: 0 to 1.

    Returns:
        The (k + 1)-th largest score with k = floor(rate (N + 1)) - 1; None where N is too small, k below 0: any finite
        limit would then be exceeded more often than asked for.

    Source: Papadopoulos et al. 2002 (split conformal prediction).
    """
    allowed = floor(rate * (len(scores) + 1) + 1e-9)  # 0.1 times 30 is a little more or less than 3
    return float(np.sort(scores)[len(scores) - allowed]) if allowed >= 1 else None
