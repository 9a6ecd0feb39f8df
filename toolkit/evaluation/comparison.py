"""Two arms of a study on the same patients: whose AUC is higher, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from toolkit.arrays import Float64
from toolkit.errors import GradeError
from toolkit.evaluation.metrics import areas
from toolkit.frozen import Frozen

RESAMPLES = 2000


class Pair(Frozen):
    """AUC of one arm less that of another on the same validation patients, with a bootstrap interval of 95 %."""

    one: str
    other: str
    difference: float
    low: float
    high: float
    splits: int


class Answers(Frozen):
    """What a run answered on its validation patients.

    Attributes:
        patients: N ids.
        grade: N, 0 LGG, 1 HGG.
        logit: N, HGG minus LGG.
    """

    patients: tuple[str, ...]
    grade: tuple[int, ...]
    logit: tuple[float, ...]


def compare_arms(one: str, other: str, answers: Mapping[str, Sequence[Answers]]) -> Pair | None:
    """Paired bootstrap of the difference of AUC.

    A resample draws splits with replacement, then in each split patients within each grade, the same for both arms.
    Splits of one cohort share patients, so that the interval is somewhat too narrow for new patients.

    Args:
        one: an arm.
        other: the arm that is taken away.
        answers: of each arm, split by split in the same order.

    Returns:
        None where a split lacks a grade, or the arms have no split in common.

    Raises:
        GradeError: the arms were not validated on the same patients.

    Source: Efron & Tibshirani 1993, chapter 16 (paired), Davison & Hinkley 1997, section 3.8 (hierarchical).
    """
    rng = np.random.default_rng(0)
    observed, resampled = [], []
    for a, b in zip(answers[one], answers[other], strict=True):
        if (a.patients, a.grade) != (b.patients, b.grade):
            raise GradeError(f"{one} and {other} were validated on different patients; compare runs of one split.")
        grade, logits = np.array(a.grade), np.array([a.logit, b.logit])  # (2, N)
        lgg, hgg = logits[:, grade == 0], logits[:, grade == 1]  # (2, n0), (2, n1)
        if not lgg.size or not hgg.size:
            return None
        observed.append(_difference(lgg, hgg))
        drawn = [rng.integers(part.shape[1], size=(RESAMPLES, part.shape[1])) for part in (lgg, hgg)]
        resampled.append(_difference(lgg[:, drawn[0]], hgg[:, drawn[1]]))  # (RESAMPLES,)
    if not observed:
        return None
    splits = rng.integers(len(observed), size=(RESAMPLES, len(observed)))
    means = np.array(resampled)[splits, np.arange(RESAMPLES)[:, None]].mean(axis=1)  # (RESAMPLES,)
    low, high = np.quantile(means, [0.025, 0.975])
    return Pair(
        one=one,
        other=other,
        difference=float(np.mean(observed)),
        low=float(low),
        high=float(high),
        splits=len(observed),
    )


def pairs_of(strategies: Sequence[str], levers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Which arms are compared: each two strategies, and each arm with a lever (lever's arm -> its strategy)."""
    return [*combinations(strategies, 2), *levers.items()]


def _difference(lgg: Float64, hgg: Float64) -> Float64:
    found = areas(lgg, hgg)  # (2, ...)
    difference: Float64 = found[0] - found[1]
    return difference
