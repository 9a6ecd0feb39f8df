"""Calibration and threshold, fitted on validation patients; prediction loads `calibration.py` alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from toolkit.arrays import Float64, Int64, Mask
from toolkit.config import CalibrationSettings, parse_rule
from toolkit.data.patients import CLASSES
from toolkit.errors import GradeError
from toolkit.evaluation.calibration import Calibration, Method, refuse_not_finite, sigmoid
from toolkit.evaluation.logistic import fit_logistic

# Platt scaling has two parameters: ten patients give five to each. Of a class with fewer than three, one patient
# moves the sensitivity or specificity that the threshold rests on by half or more.
MIN_PATIENTS = 10
MIN_PER_CLASS = 3
RESAMPLES = 1000  # of the threshold
AT_ONCE = 100  # of them
SLOPE_BOUNDS = (0.1, 10.0)  # of temperature scaling: temperatures from 10 to 0.1


def fit_calibration(logit: ArrayLike, grade: ArrayLike, settings: CalibrationSettings) -> Calibration:
    """Fit the map and the threshold on patients that the network was not trained on.

    Too few patients, one class, or logits that do not rank HGG above LGG give the identity map and threshold 0.5, with
    a note: a fit would then follow single patients, or turn the grader round.

    Args:
        logit: (N,) the logit of HGG minus that of LGG.
        grade: (N,) integers, 0 LGG, 1 HGG.
        settings: method and threshold rule.

    Raises:
        GradeError: lengths that differ, an unknown class, a logit that is not finite.

    Source: Platt 1999 (smoothed targets); Guo et al. 2017 (temperature).
    """
    logit, grade = _checked(logit, grade)
    counts = [int((grade == c).sum()) for c in range(len(CLASSES))]
    cases = dict(zip(CLASSES, counts, strict=True))
    obstacle = _obstacle(logit, grade, counts)
    if obstacle:
        note = f"{obstacle} The probability is left uncalibrated, and the threshold is 0.5 whatever the rule."
        return Calibration(method="none", a=1, b=0, threshold=0.5, rule=settings.rule, cases=cases, notes=(note,))
    method, a, b, notes = _fit_map(logit, grade, settings.method)
    threshold, reached = choose_threshold(grade, sigmoid(a * logit + b), settings.rule)
    if not reached:
        notes += (f"No threshold inside (0, 1) reaches {settings.rule}; the most sensitive one was taken.",)
    limits = threshold_limits(grade, sigmoid(a * logit + b), settings.rule)
    return Calibration(
        method=method,
        a=a,
        b=b,
        threshold=threshold,
        threshold_limits=limits,
        rule=settings.rule,
        cases=cases,
        notes=notes,
    )


def choose_threshold(grade: Int64, probability: Float64, rule: str) -> tuple[float, bool]:
    """The threshold that the rule asks for; HGG is decided at or above it.

    Candidates lie half-way between neighbouring probabilities, half-way from the smallest to 0 (all HGG) and from the
    largest to 1 (all LGG). `youden` takes the largest sensitivity + specificity, `cost` the smallest cost on these
    patients, `sensitivity=S` the largest candidate whose sensitivity is S or more. Among equals the lowest wins: it
    misses fewer HGG.

    Args:
        grade: (N,) integers, both classes present.
        probability: (N,) of HGG, 0 to 1.
        rule: as `toolkit.config.parse_rule` reads it.

    Returns:
        The threshold, strictly inside (0, 1), and whether the rule was met. Only `sensitivity=S` can fail: where HGG
        patients have probability 0, which no threshold above 0 reaches.

    Source: Youden 1950.
    """
    threshold, reached = _chosen(grade[None], probability[None], rule)
    return float(threshold[0]), bool(reached[0])


def threshold_limits(grade: Int64, probability: Float64, rule: str) -> tuple[float, float]:
    """95 % percentile interval of the threshold, patients drawn again within each grade, the map kept.

    Args:
        grade: (N,) integers, both classes present.
        probability: (N,) of HGG, 0 to 1.
        rule: as `choose_threshold`.
    """
    rng, groups = np.random.default_rng(0), [np.flatnonzero(grade == c) for c in range(len(CLASSES))]
    found = []
    for begun in range(0, RESAMPLES, AT_ONCE):
        count = min(AT_ONCE, RESAMPLES - begun)
        drawn = np.stack([np.concatenate([rng.choice(one, one.size) for one in groups]) for _ in range(count)])
        found.append(_chosen(grade[drawn], probability[drawn], rule)[0])
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)


def _chosen(grade: Int64, probability: Float64, rule: str) -> tuple[Float64, Mask]:
    """`choose_threshold` for several groups of N patients (R, N): thresholds (R,), and whether the rule was met."""
    name, first, second = parse_rule(rule)
    order = np.argsort(probability, axis=1)
    hgg = np.take_along_axis(grade, order, axis=1)
    ends = np.pad(np.take_along_axis(probability, order, axis=1), ((0, 0), (1, 1)), constant_values=(0, 1))
    low, high = ends[:, :-1], ends[:, 1:]  # (R, N + 1), rising
    middle = (low + high) / 2
    # Between two neighbouring floats there is no third: the upper one separates them as well.
    middle = np.where(middle > low, middle, high)
    usable = (low < high) & (middle > 0) & (middle < 1)
    missed = np.pad(hgg.cumsum(axis=1), ((0, 0), (1, 0)))  # HGG below
    hgg_all = missed[:, -1:]
    lgg_all = hgg.shape[1] - hgg_all
    false = lgg_all - np.arange(hgg.shape[1] + 1) + missed  # LGG at or above
    rows = np.arange(len(grade))
    if name == "sensitivity":
        enough = usable & ((hgg_all - missed) / hgg_all >= first)
        reached = enough.any(axis=1)
        last = enough.shape[1] - 1 - enough[:, ::-1].argmax(axis=1)
        return middle[rows, np.where(reached, last, usable.argmax(axis=1))], reached
    if name == "cost":
        cost = first * missed + second * false
    else:  # 1 - J, times both counts: whole numbers, so that ties are exact
        cost = (missed * lgg_all + false * hgg_all).astype(np.float64)
    cost = np.where(usable, cost, np.inf)
    best = cost <= cost.min(axis=1, keepdims=True) * (1 + 1e-12)  # costs such as 0.1 and 0.3 make ties inexact
    return middle[rows, best.argmax(axis=1)], np.ones(len(grade), np.bool_)


def _checked(logit: ArrayLike, grade: ArrayLike) -> tuple[Float64, Int64]:
    logit, grade = np.asarray(logit, dtype=np.float64), np.asarray(grade)
    if logit.shape != grade.shape or logit.ndim != 1:
        raise GradeError(f"logits have shape {logit.shape} and grades {grade.shape}; give one of each per patient.")
    if not np.isin(grade, range(len(CLASSES))).all():
        raise GradeError(f"grades {np.unique(grade).tolist()} are not all 0 (LGG) or 1 (HGG); correct the labels.")
    refuse_not_finite(logit, "train again with a lower learning rate, or with training.amp = 'off'")
    return logit, grade.astype(np.int64)


def _obstacle(logit: Float64, grade: Int64, counts: list[int]) -> str | None:
    if sum(counts) < MIN_PATIENTS or min(counts) < MIN_PER_CLASS:
        found = ", ".join(f"{n} {name}" for name, n in zip(CLASSES, counts, strict=True))
        return (
            f"Calibration needs at least {MIN_PATIENTS} patients and {MIN_PER_CLASS} of each grade; there were {found}."
        )
    if np.ptp(logit) <= 1e-9 * (1 + np.abs(logit).max()):
        return f"All {logit.size} logits equal {logit[0]:.4g}, so there is nothing to calibrate."
    # Platt's slope has the sign of the covariance of logit and target, which is that of this difference.
    difference = logit[grade == 1].mean() - logit[grade == 0].mean()
    if difference <= 1e-6 * logit.std():
        return (
            f"The mean logit of HGG is not above that of LGG (difference {difference:.4g}): "
            "the network ranks the grades the wrong way round or not at all; look at labels and training."
        )
    return None


def _fit_map(logit: Float64, grade: Int64, method: Method) -> tuple[Method, float, float, tuple[str, ...]]:
    """(applied method, a, b, notes). Temperature scaling is Platt's fit without b, its slope bounded."""
    if method == "none":
        return "none", 1.0, 0.0, ()
    n0, n1 = np.bincount(grade)
    target = np.where(grade == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    # Centred and scaled, so that the fit is well conditioned for logits of any size.
    centre = float(logit.mean()) if method == "platt" else 0.0
    scale = float(np.sqrt(((logit - centre) ** 2).mean()))
    columns = [(logit - centre) / scale, np.ones_like(logit)][: 2 if method == "platt" else 1]
    weight = fit_logistic(np.stack(columns, axis=1), target).weights  # (2,) or (1,)
    a = float(weight[0] / scale)
    b = float(weight[1] - a * centre) if method == "platt" else 0.0
    notes: tuple[str, ...] = ()
    if method == "temperature" and not SLOPE_BOUNDS[0] <= a <= SLOPE_BOUNDS[1]:
        notes = (f"The fitted slope {a:.4g} was held inside {SLOPE_BOUNDS[0]} to {SLOPE_BOUNDS[1]}.",)
        a = float(np.clip(a, *SLOPE_BOUNDS))  # the loss is convex in a: the nearer bound is the best slope inside
    if _loss(logit, target) - _loss(a * logit + b, target) <= 1e-9:
        return "none", 1.0, 0.0, (f"The logits are calibrated as they are; {method} would not lower their loss.",)
    return method, a, b, notes


def _loss(z: Float64, target: Float64) -> float:
    return float((np.logaddexp(0, z) - target * z).mean())
