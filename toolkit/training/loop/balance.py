"""Against unequal class counts: sampler, LDAM margins, deferred re-weighting; and the guard against mixing them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.config import Settings, TrainingSettings
from toolkit.errors import SettingsError

MAX_HEAD_FACTOR = 3  # head learning rate over the backbone's
MIN_EFFECTIVE_BATCH = 8  # patients per optimiser step


def epoch_order(grades: Tensor, sampler: str, generator: torch.Generator) -> Tensor:
    """Which patients an epoch visits, in order.

    Args:
        grades: (N,) int64 on the CPU, 0 LGG, 1 HGG.
        sampler: `weighted` draws N patients with replacement, each class equally often on average, as
            torch's WeightedRandomSampler does with inverse class frequencies; `shuffle` visits each patient once.
        generator: on the CPU; the order depends on nothing else.

    Returns:
        (N,) int64 positions.
    """
    if sampler == "shuffle":
        return torch.randperm(len(grades), generator=generator)
    counts = torch.bincount(grades)
    weights = 1 / counts[grades].double()  # (N,)
    return torch.multinomial(weights, len(grades), replacement=True, generator=generator)


def ldam_margins(counts: Tensor, max_m: float) -> Tensor:
    """Label-distribution-aware margins: the rarer the class, the larger.

    Args:
        counts: (C,) patients per class, each at least 1.
        max_m: the largest margin, in units of the cosine.

    Returns:
        (C,) float32, n_j^(-1/4) scaled so that the largest is `max_m`.

    Source: Cao et al. 2019, equation 13 and reference code.
    """
    margins = counts.float().pow(-0.25)
    return margins * (max_m / margins.max())


def class_weights(counts: Tensor) -> Tensor:
    """Class weights by inverse frequency, n / (2 n_c): their mean over the patients is 1.

    Args:
        counts: (2,) patients per class, each at least 1.

    Returns:
        (2,) float32.

    Source: King & Zeng 2001; scikit-learn's `class_weight="balanced"`.
    """
    return (counts.sum() / (len(counts) * counts.double())).float()


def drw_weights(counts: Tensor, beta: float) -> Tensor:
    """Class weights by the effective number of patients, (1 - beta^n) / (1 - beta).

    Args:
        counts: (C,) patients per class, each at least 1.
        beta: 0 to 1, both excluded; near 1 the weights are inverse frequencies.

    Returns:
        (C,) float32, with mean 1.

    Source: Cui et al. 2019; the scaling of Cao's reference code.
    """
    effective = (1 - beta ** counts.double()) / (1 - beta)
    weights = 1 / effective
    return (weights / weights.sum() * len(counts)).float()


@dataclass(frozen=True)
class SampleLoss:
    """Cross-entropy of each patient; margins and weights are None where the settings ask for none.

    Attributes:
        margins: (2,) in logits, taken from the logit of the patient's own class.
        weights: (2,) factors on the loss of a patient of each class.
        label_smoothing: 0 to 0.5.
    """

    margins: Tensor | None
    weights: Tensor | None
    label_smoothing: float

    def __call__(self, logits: Tensor, grades: Tensor) -> Tensor:
        """Losses, not averaged: the mean over a batch is their sum over its size (Cao 2019, algorithm 1).

        Args:
            logits: (B, 2) float32; with margins they are s times a cosine.
            grades: (B,) int64.

        Returns:
            (B,) float32.
        """
        if self.margins is not None:
            own = grades[:, None]  # (B, 1); one_hot would wait for the GPU
            logits = logits.scatter_add(1, own, -self.margins[own])  # (B, 2)
        losses = functional.cross_entropy(logits, grades, reduction="none", label_smoothing=self.label_smoothing)
        return losses if self.weights is None else losses * self.weights[grades]


def sample_loss(settings: TrainingSettings, grades: Tensor, epoch: int) -> SampleLoss:
    """The loss of one epoch.

    Args:
        settings: loss, margins, class weights, re-weighting; where both weigh, their product does.
        grades: (N,) of all training patients, both classes present; the loss computes on their device.
        epoch: counted from 1.
    """
    counts = torch.bincount(grades)
    margins = weights = None
    if settings.loss == "ldam":  # the logits are s * cosine already, so the margin is scaled too
        margins = settings.ldam_s * ldam_margins(counts, settings.ldam_max_m)
    if settings.class_weights:
        weights = class_weights(counts)
    if settings.drw_epoch is not None and epoch >= settings.drw_epoch:
        deferred = drw_weights(counts, settings.drw_beta)
        weights = deferred if weights is None else weights * deferred
    return SampleLoss(margins, weights, settings.label_smoothing)


def conflicts(settings: TrainingSettings) -> tuple[str, ...]:
    """What in these settings works against a stable training, one sentence each.

    LDAM with deferred re-weighting is one published recipe and counts as one mechanism; any other two correct the same
    imbalance twice.
    """
    found = []
    recipes = {
        "weighted sampler": settings.sampler == "weighted",
        "class weights": settings.class_weights,
        "LDAM margins": settings.loss == "ldam",
        "re-weighting": settings.drw_epoch is not None,
    }
    acting = [name for name, on in recipes.items() if on]
    if len(acting) > 1 and acting != ["LDAM margins", "re-weighting"]:
        found.append(
            f"{len(acting)} balancing mechanisms act at once ({', '.join(acting)}); keep one: for the sampler alone"
            " plain cross-entropy without class_weights and drw_epoch, for any other training.sampler = shuffle."
        )
    found += _late_reweighting(settings)
    if settings.head_lr > MAX_HEAD_FACTOR * settings.lr:
        found.append(
            f"The head learns {settings.head_lr / settings.lr:.3g} times as fast as the backbone"
            f" ({settings.head_lr:g} against {settings.lr:g}); at most {MAX_HEAD_FACTOR} times is stable."
        )
    effective = settings.batch_size * settings.accumulation
    if effective < MIN_EFFECTIVE_BATCH:
        found.append(
            f"An optimiser step sees {effective} patients (batch {settings.batch_size} x accumulation"
            f" {settings.accumulation}); raise training.accumulation until it sees {MIN_EFFECTIVE_BATCH}."
        )
    return tuple(found)


def check_conflicts(settings: Settings, allow: bool) -> tuple[str, ...]:
    """The conflicts, for showing before training starts.

    Args:
        settings: strategy `legacy` asks for its conflicts on purpose.
        allow: the user does so too.

    Raises:
        SettingsError: there are conflicts, and neither asks for them.
    """
    found = conflicts(settings.training)
    if found and settings.strategy != "legacy" and not allow:
        raise SettingsError(f"{' '.join(found)} To train anyway, add --allow-conflicts.")
    return found


def _late_reweighting(settings: TrainingSettings) -> list[str]:
    if settings.drw_epoch is None:
        return []
    if settings.drw_epoch > settings.epochs:
        return [
            f"Re-weighting from epoch {settings.drw_epoch} never acts in {settings.epochs} epochs; lower drw_epoch."
        ]
    # The first epoch is the first best one; patience counts from there.
    earliest = max(settings.min_epochs, 1 + settings.early_stopping)
    if settings.drw_epoch <= earliest:
        return []
    return [
        f"Re-weighting starts in epoch {settings.drw_epoch}, but early stopping can end the training after epoch"
        f" {earliest}; lower training.drw_epoch or raise training.min_epochs."
    ]
