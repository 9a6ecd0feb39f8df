"""Has something changed? Sequential tests that keep their rate of false alarms however often one looks.

Numbers: each new patient's place among the reference and all earlier patients. As long as nothing changes the places
are independent and uniform, whatever the distribution, so the limit of a two-sided CUSUM of bets on them can be
simulated once. Shares: a CUSUM of likelihood ratios, its limit simulated at the largest share that is no alarm.
Outcomes: the same against probabilities whose odds are off by the largest factor that is no alarm.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from toolkit.arrays import Float64, Int64
from toolkit.evaluation.calibration import sigmoid

BET = 0.8  # of the capital, on a place being high or low
RUNS = 20_000  # simulated
OUTCOME_RUNS = 4000
SAFETY = 0.05  # chance that a simulated limit is too low
STEP = 1.0  # log odds beyond the largest shift that is no alarm: the shift that is found fastest


class Watched(NamedTuple):
    """One thing that is watched.

    Attributes:
        name: of it.
        path: (N,) log of the evidence after each patient, 0 or more.
        limit: an alarm where the path reaches it.
        towards: where the evidence points at its largest, `higher` or `lower`.
    """

    name: str
    path: Float64
    limit: float
    towards: str

    @property
    def alarm(self) -> int | None:
        """Position of the first patient at whom there is an alarm."""
        over = np.flatnonzero(self.path >= self.limit)
        return int(over[0]) if len(over) else None


def watch_numbers(name: str, reference: Sequence[float], values: Sequence[float], rate: float, horizon: int) -> Watched:
    """Watch a number of each patient.

    Args:
        name: of it.
        reference: of familiar patients, at least one.
        values: of new patients, in the order of time.
        rate: of false alarms within `horizon` patients, 0 to 1.
        horizon: patients.

    Source: Vovk, Gammerman & Shafer 2005, "Algorithmic learning in a random world" (smoothed conformal places); Page
    1954 (CUSUM).
    """
    place = places(reference, values)
    higher, lower = _cusum(np.log1p(BET * (2 * place - 1))), _cusum(np.log1p(-BET * (2 * place - 1)))
    towards = "higher" if higher.max(initial=0) >= lower.max(initial=0) else "lower"
    return Watched(name, np.maximum(higher, lower), place_limit(rate, horizon), towards)


def places(reference: Sequence[float], values: Sequence[float]) -> Float64:
    """Each value's place among the reference and the values before it, (N,) in 0 to 1; ties are drawn."""
    known, rng = sorted(reference), np.random.default_rng(0)
    found = np.empty(len(values))
    for position, (value, part) in enumerate(zip(values, rng.random(len(values)), strict=True)):
        below, upto = bisect_left(known, value), bisect_right(known, value)
        found[position] = (below + part * (upto - below + 1)) / (len(known) + 1)
        insort(known, value)
    return found


def watch_share(name: str, hits: Int64, most: float, rate: float, horizon: int) -> Watched:
    """Watch how often something happens.

    Args:
        name: of it.
        hits: (N,) 0 or 1, in the order of time.
        most: share that is still no alarm, inside (0, 1).
        rate: of false alarms within `horizon` patients, 0 to 1.
        horizon: patients.
    """
    steps = _share_steps(most)
    path = _cusum(np.where(hits == 1, steps[1], steps[0]))
    return Watched(name, path, share_limit(most, rate, horizon), "higher")


def watch_outcomes(name: str, grade: Int64, probability: Float64, odds: float, rate: float) -> Watched:
    """Watch whether outcomes fit the probabilities, within a factor of the odds.

    Args:
        name: of it.
        grade: (N,) 0 LGG, 1 HGG, in the order of grading; outcomes may be late and incomplete.
        probability: (N,) of HGG.
        odds: factor by which the odds may be off, 1 or more.
        rate: of false alarms over these patients, 0 to 1.
    """
    rng, each = np.random.default_rng(0), rate / 2
    z, edge = _logit(probability), float(np.log(odds))
    paths, limits = [], []
    for sign in (1, -1):
        null, other = sigmoid(z + sign * edge), sigmoid(z + sign * (edge + STEP))
        win, lose = np.log(other / null), np.log((1 - other) / (1 - null))
        paths.append(_cusum(np.where(grade == 1, win, lose)))
        drawn = rng.random((OUTCOME_RUNS, len(z))) < null
        limits.append(_simulated_limit(np.where(drawn, win, lose).T, 0, each))
    scaled = [path / limit for path, limit in zip(paths, limits, strict=True)]
    towards = "more HGG" if scaled[0].max(initial=0) >= scaled[1].max(initial=0) else "fewer HGG"
    return Watched(name, np.maximum(*scaled), 1.0, towards)


@lru_cache
def place_limit(rate: float, horizon: int) -> float:
    """Limit of the two-sided CUSUM of places: exceeded in any `horizon` patients with a chance of `rate` at most."""
    rng = np.random.default_rng(0)
    sides = np.zeros((2, RUNS))
    highest = np.zeros(RUNS)
    for step in range(2 * horizon):  # the first horizon brings the path into its steady state
        bet = BET * (2 * rng.random(RUNS) - 1)
        sides = np.maximum(sides + np.log1p(np.stack([bet, -bet])), 0)
        if step >= horizon:
            np.maximum(highest, sides.max(axis=0), out=highest)
    return _upper(highest, rate)


@lru_cache
def share_limit(most: float, rate: float, horizon: int) -> float:
    """The same for a share of at most `most`."""
    miss, hit = _share_steps(most)
    drawn = np.random.default_rng(0).random((2 * horizon, RUNS)) < most
    return _simulated_limit(np.where(drawn, hit, miss), horizon, rate)


def expected_auc(probability: Float64) -> float | None:
    """The AUC that calibrated probabilities promise, without outcomes; None where all are certain of one grade.

    Args:
        probability: (N,) of HGG.

    Source: the idea of CBPE, NannyML; here every pair of patients is weighed by the chance that its grades differ.
    """
    rising = np.sort(probability)
    hgg, lgg = rising, 1 - rising
    pairs = float(hgg.sum() * lgg.sum() - (hgg * lgg).sum())
    if pairs <= 0:
        return None
    below = np.concatenate([[0.0], np.cumsum(lgg)])
    first, last = np.searchsorted(rising, rising, "left"), np.searchsorted(rising, rising, "right")
    ties = below[last] - below[first] - lgg  # others of the same probability count half
    return float((hgg * (below[first] + ties / 2)).sum() / pairs)


def _cusum(steps: Float64) -> Float64:
    """max(0, path + step) after each step, from 0."""
    total = np.concatenate([[0.0], np.cumsum(steps)])
    path: Float64 = total - np.minimum.accumulate(total)
    return path[1:]


def _share_steps(most: float) -> tuple[float, float]:
    """Log likelihood ratios of no hit and of a hit, for twice the share (or half-way to 1)."""
    other = min(2 * most, (1 + most) / 2)
    return float(np.log((1 - other) / (1 - most))), float(np.log(other / most))


def _simulated_limit(steps: Float64, before: int, rate: float) -> float:
    """Limit of a CUSUM whose steps (patients, runs) were drawn; `before` patients come before those that count."""
    path, highest = np.zeros(steps.shape[1]), np.zeros(steps.shape[1])
    for number, step in enumerate(steps):
        path = np.maximum(path + step, 0)
        if number >= before:
            np.maximum(highest, path, out=highest)
    return _upper(highest, rate)


def _upper(highest: Float64, rate: float) -> float:
    """A limit that a new run exceeds with a chance of at most `rate`, with 95 % confidence; above 0."""
    rank = max(int(binom.ppf(SAFETY, len(highest), rate)), 1)
    return max(float(np.sort(highest)[-rank]), 1e-9) * (1 + 1e-9)


def _logit(probability: Float64) -> Float64:
    sure = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(sure / (1 - sure)), np.float64)
