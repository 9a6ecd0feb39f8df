"""Which measure tells that a chosen epoch was luck? The spread of the last epochs and the peak, on simulated trainings.

57 patients (42 HGG, 15 LGG), as a fifth of BraTS 2018. The network of an epoch answers with a patient's own logit, plus
a separation between the grades, plus noise of its own for each patient; all in units of the spread of logits within a
grade. The stop is that of the presets, the measures are those of a run's page.

Luck is what the chosen epoch's AUC owes to the noise of its epoch: that AUC, less the AUC on the same patients averaged
over other draws of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import arguments, report
from toolkit.arrays import Float64
from toolkit.config import TrainingSettings
from toolkit.evaluation.metrics import areas
from toolkit.evaluation.stability import best_epoch, stability

HGG, LGG, EPOCHS, DRAWS, REDRAWS = 42, 15, 40, 1000, 100
TIME = np.arange(1, EPOCHS + 1)
RISE = 1 - np.exp(-TIME / 4)  # of the separation, over the epochs
COSINE = (1 + np.cos(np.pi * TIME / EPOCHS)) / 2  # of the learning rate

STABLE, LEGACY = TrainingSettings(), TrainingSettings(early_stopping=7, min_epochs=10)
# Name -> separation, noise, stop. 1.4 is a true AUC of 0.84 without noise.
KINDS: dict[str, tuple[Float64, Float64, TrainingSettings]] = {
    "steady": (1.4 * RISE, np.full(EPOCHS, 0.15), STABLE),
    "as noisy as the limit of 0.02 allows": (1.4 * RISE, np.full(EPOCHS, 0.29), STABLE),
    "noisy": (1.4 * RISE, np.full(EPOCHS, 0.6), STABLE),
    "quiet once the learning rate is low": (1.4 * RISE, 0.05 + 0.9 * COSINE**2, STABLE),
    "wild at first, then stuck; stops about epoch 12": (
        np.where(TIME <= 6, 1.1, 0.9),
        np.where(TIME <= 6, 0.9, 0.08),
        LEGACY,
    ),
}


@dataclass(frozen=True)
class Epoch:
    """What the measures read of one."""

    epoch: int
    val_auc: float
    train_loss: float = 0.5
    train_auc: float | None = None
    val_loss: float = 0.5


@dataclass(frozen=True)
class Training:
    """What a simulated training comes to."""

    epochs: int
    spread: float
    peak: float
    luck: float
    met: tuple[bool, bool]


def stopped(history: Sequence[Epoch], settings: TrainingSettings) -> list[Epoch]:
    """The epochs up to the stop."""
    for count in range(settings.min_epochs, len(history)):
        best = best_epoch(history[:count])
        if best is not None and count - best.epoch >= settings.early_stopping:
            return list(history[:count])
    return list(history)


def train(rng: np.random.Generator, separation: Float64, noise: Float64, settings: TrainingSettings) -> Training:
    """One simulated training."""
    own = rng.normal(size=LGG), rng.normal(size=HGG)  # each patient's own logit

    def answers(epoch: Sequence[int], draws: int = 1) -> Float64:
        steps = np.repeat(np.asarray(epoch), draws)
        lgg = own[0] + noise[steps, None] * rng.normal(size=(len(steps), LGG))
        hgg = own[1] + separation[steps, None] + noise[steps, None] * rng.normal(size=(len(steps), HGG))
        return areas(lgg, hgg)

    aucs = answers(range(EPOCHS))
    history = stopped([Epoch(number, float(auc)) for number, auc in enumerate(aucs, start=1)], settings)
    best = best_epoch(history)
    spread, _, _, peak = stability(history)
    if best is None or spread.value is None or peak.value is None:
        raise ValueError("a simulated training has all its measures")
    luck = best.val_auc - float(answers([best.epoch - 1], REDRAWS).mean())
    return Training(len(history), spread.value, peak.value, luck, (bool(spread.met), bool(peak.met)))


def main() -> None:
    """Print a row for each kind of training, and how well each measure ranks all of them by their luck."""
    given = arguments("Which measure tells that a chosen epoch was luck.")
    rng = np.random.default_rng(0)
    rows, everyone = [], []
    for name, kind in KINDS.items():
        found = [train(rng, *kind) for _ in range(DRAWS)]
        everyone += found
        mean = np.mean([(one.epochs, one.luck, one.spread, one.peak, *one.met) for one in found], axis=0)
        rows.append((name, *map(float, mean)))
    luck = [one.luck for one in everyone]
    ranks = [float(spearmanr([getattr(one, name) for one in everyone], luck).statistic) for name in ("spread", "peak")]
    rows.append(("Spearman's rho with the luck, all trainings", None, None, *ranks, None, None))
    columns = ("training", "epochs", "luck", "spread", "peak", "spread < 0.02", "peak < 0.04")
    report(f"{DRAWS} simulated trainings of each kind, {HGG} HGG and {LGG} LGG", columns, rows, given.out)


if __name__ == "__main__":
    main()
