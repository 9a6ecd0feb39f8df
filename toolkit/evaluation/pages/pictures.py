"""The plots of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from toolkit.data.patients import CLASSES
from toolkit.evaluation.clinical import decision_curve
from toolkit.evaluation.metrics import auc, reliability_bins, roc_points
from toolkit.evaluation.pages.drawing import FIRST, INK, MANY, SECOND
from toolkit.evaluation.stability import Epoch, best_epoch


def draw_loss(figure: Figure, history: Sequence[Epoch]) -> None:
    """Training and validation loss per epoch."""
    axes = figure.add_subplot()
    _curves(axes, history, [row.train_loss for row in history], [row.val_loss for row in history])
    axes.set_ylabel("loss")
    axes.legend(loc="best")


def draw_auc(figure: Figure, history: Sequence[Epoch]) -> None:
    """Training and validation AUC per epoch; undefined ones leave a gap."""
    axes = figure.add_subplot()
    _curves(axes, history, [row.train_auc for row in history], [row.val_auc for row in history])
    axes.set_ylabel("AUC")
    axes.legend(loc="best")


def draw_runs(figure: Figure, curves: Mapping[str, tuple[str, Sequence[float | None]]], label: str) -> None:
    """A line per run over its epochs, a colour per arm; undefined values leave a gap.

    Args:
        figure: to draw on.
        curves: run -> (arm, a value per epoch).
        label: of the values.
    """
    axes = figure.add_subplot(xlabel="epoch", ylabel=label)
    arms = list(dict.fromkeys(arm for arm, _ in curves.values()))
    for place, arm in enumerate(arms):
        color, dashes = MANY[place % len(MANY)], ("-", "--", ":")[place // len(MANY) % 3]
        for number, values in enumerate(values for of, values in curves.values() if of == arm):
            epochs = range(1, len(values) + 1)
            line = axes.plot(epochs, np.array(values, dtype=np.float64), dashes, color=color, alpha=0.8, linewidth=1.2)
            line[0].set_label(arm if not number else "_")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2, color=INK)
    axes.legend(loc="best")


def draw_roc(figure: Figure, grade: ArrayLike, probability: ArrayLike, threshold: float | None = None) -> None:
    """The ROC curve, with the chosen threshold marked on it."""
    axes = figure.add_subplot(xlabel="1 - specificity", ylabel="sensitivity")
    _unit_square(axes)
    curve = roc_points(grade, probability)
    if curve is None:
        axes.text(0.03, 0.9, "undefined: patients of one grade only")
        return
    axes.plot(*curve, color=FIRST, clip_on=False, label=f"AUC {auc(grade, probability):.3f}")
    if threshold is not None:
        grades, hgg = np.asarray(grade), np.asarray(probability) >= threshold
        axes.plot(
            hgg[grades == 0].mean(), hgg[grades == 1].mean(), "o", color=SECOND, label=f"threshold {threshold:.3f}"
        )
    axes.legend(loc="lower right")


def draw_reliability(figure: Figure, grade: ArrayLike, probability: ArrayLike) -> None:
    """Observed share of HGG against predicted probability, over the count of patients in each bin."""
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _unit_square(top)
    bins = reliability_bins(grade, probability)
    predicted = [one.predicted for one in bins]
    observed = np.array([one.observed for one in bins])  # (bins, 3): value, low, high
    top.vlines(predicted, observed[:, 1], observed[:, 2], color=FIRST, alpha=0.6)
    top.plot(predicted, observed[:, 0], "o-", color=FIRST, clip_on=False)
    top.set_ylabel(f"observed share of {CLASSES[1]}")
    bars = bottom.bar(predicted, [one.cases for one in bins], width=0.06, color=FIRST, alpha=0.6)
    bottom.bar_label(bars)
    bottom.margins(y=0.4)
    bottom.set(xlabel=f"predicted probability of {CLASSES[1]}", ylabel="patients", yticks=[])


def draw_benefit(figure: Figure, grade: ArrayLike, probability: ArrayLike) -> None:
    """The decision curve; below zero it is cut off."""
    axes = figure.add_subplot(xlabel="threshold probability", ylabel="net benefit per patient")
    curve = decision_curve(np.asarray(grade), np.asarray(probability, np.float64))
    axes.plot(curve.threshold, curve.model, color=FIRST, label="model")
    axes.plot(curve.threshold, curve.everyone, color=SECOND, linestyle="--", label="everyone is HGG")
    axes.axhline(0, color=INK, alpha=0.5, linestyle=":", label="no one is HGG")
    axes.set(xlim=(0, 1), ylim=(-0.05, max(0.1, 1.05 * float(curve.model.max()))))
    axes.grid(alpha=0.2, color=INK)
    axes.legend(loc="best")


def _curves(
    axes: Axes, history: Sequence[Epoch], training: Sequence[float | None], validation: Sequence[float | None]
) -> None:
    epochs = [row.epoch for row in history]
    for name, values, color in (("training", training, FIRST), ("validation", validation, SECOND)):
        axes.plot(epochs, np.array(values, dtype=np.float64), ".-", color=color, label=name)
    best = best_epoch(history)
    if best is not None:
        axes.axvline(best.epoch, color=INK, alpha=0.5, linestyle=":", label=f"best epoch, {best.epoch}")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2, color=INK)


def _unit_square(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linestyle=":")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.2, color=INK)
