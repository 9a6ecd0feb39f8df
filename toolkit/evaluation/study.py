"""What a study of several strategies over several seeds found: numbers, comparisons and verdicts, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from toolkit.evaluation.comparison import Pair
from toolkit.evaluation.stability import GAP_LIMIT, LAST_EPOCHS, PEAK_LIMIT, SPREAD_LIMIT, TREND_LIMIT, Criterion
from toolkit.frozen import Frozen

ENOUGH = 0.8  # share of the runs that must meet a criterion: 4 of 5


class RunRecord(Frozen):
    """One training. What is None was undefined.

    Attributes:
        name: of its folder.
        arm: a strategy, or a strategy with one lever.
        seed: of split, weights, order and augmentation.
        fold: counted from 1; None without folds.
        auc: of the best epoch's network on the validation patients.
        accuracy: on the same, deciding at the calibrated threshold, which was chosen on them.
        spread: standard deviation of the validation AUC over the last 5 epochs.
        trend: Spearman's rho of the smoothed training loss against the epoch.
        gap: training AUC less validation AUC at the best epoch.
        peak: validation AUC of the best epoch less the mean of the epochs around it.
        spikes: share of optimiser steps above 3 times the running median of the loss.
        epochs: finished.
        best_epoch: counted from 1.
        drw_epoch: from which re-weighting was to act; None where it was not asked for.
        seconds: of all epochs.
        val_auc: of each epoch.
        train_loss: of each epoch.
    """

    name: str
    arm: str
    seed: int
    fold: int | None
    auc: float | None
    accuracy: float
    spread: float | None
    trend: float | None
    gap: float | None
    peak: float | None
    spikes: float | None
    epochs: int
    best_epoch: int
    drw_epoch: int | None
    seconds: float
    val_auc: tuple[float | None, ...]
    train_loss: tuple[float, ...]


class Summary(Frozen):
    """Several values of one measure; `sd` with ddof 1, None for a single value; all None but `count` where none is."""

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    count: int


class Arm(Frozen):
    """All runs of a strategy, or of a strategy with one lever.

    Attributes:
        name: as the runs have it.
        changes: settings by which it differs from its strategy's preset.
        auc: over seeds; folds of one seed are averaged first.
        drw_started: runs in which re-weighting began; None where it was not asked for.
        verdicts: one per criterion of the design.
    """

    name: str
    changes: tuple[str, ...]
    runs: int
    auc: Summary
    accuracy: Summary
    spread: Summary
    trend: Summary
    gap: Summary
    peak: Summary
    spikes: Summary
    epochs: Summary
    best_epoch: Summary
    seconds: Summary
    drw_epoch: int | None
    drw_started: int | None
    verdicts: tuple[Criterion, ...]


class BaselineRecord(Frozen):
    """A grader without a network, fitted on the training patients of each run's split.

    Attributes:
        looks_at: what it knows of a patient.
        auc: on the validation patients, over seeds.
        accuracy: on the same, deciding at probability 0.5.
    """

    name: str
    looks_at: str
    auc: Summary
    accuracy: Summary


class Study(Frozen):
    """Everything that the page shows."""

    headline: str
    notes: tuple[str, ...]
    arms: tuple[Arm, ...]
    baselines: tuple[BaselineRecord, ...]
    pairs: tuple[Pair, ...]
    runs: tuple[RunRecord, ...]
    failed: dict[str, str]
    details: dict[str, str]


def summary(values: Sequence[float | None]) -> Summary:
    """Mean, standard deviation and range of the values that are defined."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not known.size:
        return Summary(mean=None, sd=None, low=None, high=None, count=0)
    sd = float(known.std(ddof=1)) if known.size > 1 else None
    return Summary(mean=float(known.mean()), sd=sd, low=float(known.min()), high=float(known.max()), count=known.size)


def summarise_arm(name: str, changes: Sequence[str], runs: Sequence[RunRecord]) -> Arm:
    """Over the runs of one arm, at least one."""
    auc = over_seeds(runs, lambda run: run.auc)
    wanted = runs[0].drw_epoch
    return Arm(
        name=name,
        changes=tuple(changes),
        runs=len(runs),
        auc=auc,
        accuracy=over_seeds(runs, lambda run: run.accuracy),
        **{
            measure: summary([getattr(run, measure) for run in runs])
            for measure in ("spread", "trend", "gap", "peak", "spikes", "epochs", "best_epoch", "seconds")
        },
        drw_epoch=wanted,
        drw_started=None if wanted is None else sum(run.epochs >= wanted for run in runs),
        verdicts=(
            _verdict(
                "Validation AUC steady",
                f"the standard deviation of the validation AUC over the last {LAST_EPOCHS} epochs",
                [run.spread for run in runs],
                SPREAD_LIMIT,
            ),
            _verdict(
                "Training loss falling",
                "Spearman's rho of the smoothed training loss against the epoch",
                [run.trend for run in runs],
                TREND_LIMIT,
            ),
            _verdict(
                "Little over-fitting",
                "the training AUC less the validation AUC at the best epoch",
                [run.gap for run in runs],
                GAP_LIMIT,
            ),
            _verdict(
                "Chosen epochs no lucky ones",
                "the validation AUC of the best epoch less the mean of the epochs around it",
                [run.peak for run in runs],
                PEAK_LIMIT,
            ),
            _reproducibility(auc),
        ),
    )


def over_seeds(runs: Sequence[RunRecord], measure: Callable[[RunRecord], float | None]) -> Summary:
    """A measure's mean over the folds of each seed, summed up over the seeds."""
    seeds = sorted({run.seed for run in runs})
    return summary([summary([measure(run) for run in runs if run.seed == seed]).mean for seed in seeds])


def drw_sentence(arm: Arm, runs: Sequence[RunRecord]) -> str | None:
    """Says so where re-weighting that was asked for did not begin in every run."""
    if arm.drw_epoch is None or arm.drw_started is None or arm.drw_started == arm.runs:
        return None
    ended = ", ".join(str(epochs) for epochs in sorted(run.epochs for run in runs if run.epochs < arm.drw_epoch))
    never = "never began" if not arm.drw_started else f"began in {arm.drw_started} of {arm.runs} runs only"
    return (
        f"{arm.name}: re-weighting was to start in epoch {arm.drw_epoch} and {never}: trainings ended before it, after"
        f" epoch {ended}."
    )


def headline(arms: Sequence[Arm], baselines: Sequence[BaselineRecord]) -> str:
    """The first line of the page: whether any network is better than the best grader without one."""
    best, rival = (_highest([(one.name, one.auc) for one in part]) for part in (arms, baselines))
    if best is None:
        return "No strategy has an AUC: no run ended, or the validation patients are of one grade."
    if rival is None:
        return f"The highest mean AUC is that of {best[1]}; no baseline has one."
    if best[0] <= rival[0]:
        return f"No strategy beats the best baseline, {rival[1]}; the best strategy is {best[1]}."
    return f"The highest mean AUC is that of {best[1]}; the best baseline is {rival[1]}."


def _verdict(name: str, what: str, values: Sequence[float | None], limit: float) -> Criterion:
    known = [value for value in values if value is not None]
    if not known:
        sentence = f"Not defined in any of {len(values)} runs."
        return Criterion(name=name, value=None, limit=limit, met=None, sentence=sentence)
    good = sum(value < limit for value in known)
    unknown = f", undefined in {len(values) - len(known)}" if len(known) < len(values) else ""
    sentence = (
        f"In {good} of {len(values)} runs {what} is below the limit of {limit:g}{unknown}; mean {np.mean(known):.3f}, "
        f"worst {max(known):.3f}."
    )
    # What is undefined counts as not met, but alone proves nothing.
    return Criterion(
        name=name, value=good / len(values), limit=ENOUGH, met=good >= ENOUGH * len(values), sentence=sentence
    )


def _reproducibility(auc: Summary) -> Criterion:
    value = "not defined: it needs two seeds" if auc.sd is None else f"{auc.sd:.3f}"
    sentence = f"Standard deviation of the best validation AUC over {auc.count} seeds: {value}."
    return Criterion(name="Reproducible over seeds", value=auc.sd, limit=None, met=None, sentence=sentence)


def _highest(candidates: Sequence[tuple[str, Summary]]) -> tuple[float, str] | None:
    """The highest mean, and words for it."""
    found = []
    for name, auc in candidates:
        if auc.mean is not None:
            sd = "" if auc.sd is None else f" ± {auc.sd:.3f}"
            found.append((auc.mean, f"{name} (AUC {auc.mean:.3f}{sd})"))
    return max(found, key=lambda one: one[0], default=None)
