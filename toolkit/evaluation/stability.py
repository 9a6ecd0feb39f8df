"""Did a training go steadily? Four criteria, read off the history of its epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from scipy.stats import spearmanr

from toolkit.frozen import Frozen

LAST_EPOCHS = 5
SPREAD_LIMIT = 0.02
TREND_LIMIT = -0.8
GAP_LIMIT = 0.10
PEAK_LIMIT = 0.04  # what noise of 0.02 from epoch to epoch gives (benchmarks/steadiness.py)
NEIGHBOURS = 2  # epochs on either side of the chosen one
SMOOTHING = 3  # epochs in the moving mean of the training loss
SPIKE_FACTOR = 3.0  # times the running median
SPIKE_WINDOW = 50  # steps before the one that is looked at
SPIKE_START = 10  # steps that a median needs
# With five smoothed points one swapped pair of neighbours leaves rho at -0.9; with four it already fails the limit.
MIN_SMOOTHED = 5


class Epoch(Protocol):
    """What is read of one epoch; an AUC is None where it was undefined."""

    @property
    def epoch(self) -> int:
        """Counted from 1."""

    @property
    def train_loss(self) -> float:
        """Mean over the epoch."""

    @property
    def train_auc(self) -> float | None:
        """0 to 1."""

    @property
    def val_auc(self) -> float | None:
        """0 to 1."""

    @property
    def val_loss(self) -> float:
        """Mean over the validation patients."""


AnyEpoch = TypeVar("AnyEpoch", bound=Epoch)


class Criterion(Frozen):
    """One criterion: what was measured, its limit, and a sentence; `met` is None where nothing could be measured."""

    name: str
    value: float | None
    limit: float | None
    met: bool | None
    sentence: str


def stability(history: Sequence[Epoch]) -> tuple[Criterion, ...]:
    """The criteria of one training, in the order in which they are printed.

    Args:
        history: the finished epochs, in order.

    Returns:
        Spread of the validation AUC, trend of the training loss, gap between training and validation AUC, and how far
        the chosen epoch stands out from its neighbours.
    """
    return (_spread(history), _trend(history), _gap(history), _peak(history))


def loss_spikes(losses: Sequence[float]) -> float | None:
    """Share of optimiser steps whose loss is above 3 times the median of the (at most 50) steps before.

    A loss that is not finite is a spike, and takes no part in a median. The first 10 steps are not judged.

    Args:
        losses: of all steps, in order.

    Returns:
        0 to 1; None where no step can be judged.
    """
    values = np.array(losses, dtype=np.float64)
    spikes = []
    for step in range(SPIKE_START, values.size):
        before = values[max(0, step - SPIKE_WINDOW) : step]
        before = before[np.isfinite(before)]
        if before.size:
            spikes.append(not values[step] <= SPIKE_FACTOR * np.median(before))
    return float(np.mean(spikes)) if spikes else None


def best_epoch(history: Sequence[AnyEpoch]) -> AnyEpoch | None:
    """The epoch whose weights are kept.

    Highest validation AUC; among equals, and where none has an AUC, lowest validation loss; then the earliest. NaN
    counts as the worst value, so it never blocks a later epoch. None only for an empty history.
    """
    return max(history, key=_merit, default=None)


def _merit(row: Epoch) -> tuple[float, float]:
    auc = -math.inf if row.val_auc is None or math.isnan(row.val_auc) else row.val_auc
    return auc, -(math.inf if math.isnan(row.val_loss) else row.val_loss)


def _spread(history: Sequence[Epoch]) -> Criterion:
    """Sample standard deviation (ddof 1): five epochs are a sample of how the training fluctuates."""
    name = "Validation AUC steady"
    last = [row.val_auc for row in history[-LAST_EPOCHS:]]
    known = [value for value in last if value is not None]
    if len(known) < LAST_EPOCHS:
        return _undefined(
            name,
            SPREAD_LIMIT,
            f"it needs a validation AUC in each of the last {LAST_EPOCHS} epochs; it is there in {len(known)}",
        )
    value = float(np.std(known, ddof=1))
    met = value < SPREAD_LIMIT
    sentence = (
        f"The standard deviation of the validation AUC over the last {LAST_EPOCHS} epochs is {value:.3f}, "
        f"{_side(met, SPREAD_LIMIT)}."
    )
    return Criterion(name=name, value=value, limit=SPREAD_LIMIT, met=met, sentence=sentence)


def _trend(history: Sequence[Epoch]) -> Criterion:
    """Spearman's rho of epoch against the loss, smoothed by a moving mean of three whole epochs (no padding)."""
    name = "Training loss falling"
    loss = np.array([row.train_loss for row in history], dtype=np.float64)
    needed = MIN_SMOOTHED + SMOOTHING - 1
    if loss.size < needed:
        return _undefined(name, TREND_LIMIT, f"it needs {needed} epochs, and there are {loss.size}")
    if not np.isfinite(loss).all():
        first = history[int(np.argmin(np.isfinite(loss)))].epoch
        return _undefined(name, TREND_LIMIT, f"the training loss of epoch {first} is not finite")
    smoothed = np.lib.stride_tricks.sliding_window_view(loss, SMOOTHING).mean(axis=-1)  # (epochs - 2,)
    if np.ptp(smoothed) == 0:
        return _undefined(name, TREND_LIMIT, f"the training loss stayed at {loss[0]:.4g}, so it has no order")
    value = float(spearmanr(np.arange(smoothed.size), smoothed).statistic)
    met = value < TREND_LIMIT
    sentence = (
        f"Spearman's rho of the smoothed training loss against the epoch is {value:.2f}, {_side(met, TREND_LIMIT)}."
    )
    return Criterion(name=name, value=value, limit=TREND_LIMIT, met=met, sentence=sentence)


def _gap(history: Sequence[Epoch]) -> Criterion:
    """Measured at the best epoch, because its weights are the ones that are exported."""
    name = "Little over-fitting"
    best = best_epoch(history)
    if best is None or best.val_auc is None:
        return _undefined(name, GAP_LIMIT, "no epoch has a validation AUC")
    if best.train_auc is None:
        return _undefined(name, GAP_LIMIT, f"the best epoch, {best.epoch}, has no training AUC")
    value = best.train_auc - best.val_auc
    met = value < GAP_LIMIT
    sentence = (
        f"At the best epoch, {best.epoch}, the training AUC less the validation AUC is {value:.3f}, "
        f"{_side(met, GAP_LIMIT)}."
    )
    return Criterion(name=name, value=value, limit=GAP_LIMIT, met=met, sentence=sentence)


def _peak(history: Sequence[Epoch]) -> Criterion:
    """The spread looks at the epochs before the stop; this looks at those around the network that is kept."""
    name = "Chosen epoch no lucky one"
    best = best_epoch(history)
    if best is None or best.val_auc is None:
        return _undefined(name, PEAK_LIMIT, "no epoch has a validation AUC")
    around = [
        row.val_auc
        for row in history
        if 0 < abs(row.epoch - best.epoch) <= NEIGHBOURS and row.val_auc is not None and not math.isnan(row.val_auc)
    ]
    if len(around) < NEIGHBOURS:
        return _undefined(
            name,
            PEAK_LIMIT,
            f"it needs a validation AUC in {NEIGHBOURS} of the epochs around the best one, {best.epoch}; it is there in"
            f" {len(around)}",
        )
    value = best.val_auc - float(np.mean(around))
    met = value < PEAK_LIMIT
    sentence = (
        f"The validation AUC of the best epoch, {best.epoch}, less the mean of the {len(around)} epochs around it is"
        f" {value:.3f}, {_side(met, PEAK_LIMIT)}."
    )
    return Criterion(name=name, value=value, limit=PEAK_LIMIT, met=met, sentence=sentence)


def _side(met: bool, limit: float) -> str:
    return f"{'below' if met else 'not below'} the limit of {limit:g}"


def _undefined(name: str, limit: float, reason: str) -> Criterion:
    return Criterion(name=name, value=None, limit=limit, met=None, sentence=f"Not defined: {reason}.")
