"""What is decided per epoch or step by plain arithmetic: learning rate, batches, seeds, the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from toolkit.config import TrainingSettings
from toolkit.evaluation.stability import best_epoch
from toolkit.training.runs.run import EpochRow

Purpose = Literal["sampler", "augmentation", "dropout"]
_STREAMS: dict[Purpose, int] = {"sampler": 0, "augmentation": 1, "dropout": 2}


def lr_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor on the learning rates: a linear rise that reaches 1 at `warmup_steps`, then half a cosine to 0.

    Args:
        step: optimiser steps taken before this one, 0 to `total_steps` - 1.
        warmup_steps: 0 starts at 1.
        total_steps: of the whole training.

    Returns:
        Above 0, at most 1.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


def accumulation_groups(order: Tensor, batch_size: int, accumulation: int, least: int = 2) -> list[list[Tensor]]:
    """Cut an epoch into optimiser steps, and each into batches.

    A last batch that is too small joins the one before it: BatchNorm has nothing to normalise over in a single patient.

    Args:
        order: (N,) positions.
        batch_size: patients per batch.
        accumulation: batches per step; the last step takes what is left.
        least: patients of the last batch, where all are not of one patient.

    Returns:
        Steps of batches of positions; together they are `order`.
    """
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and batch_size > 1 and len(batches[-1]) < least:
        batches[-2:] = [torch.cat(batches[-2:])]
    return [batches[i : i + accumulation] for i in range(0, len(batches), accumulation)]


def epoch_seeds(seed: int, epoch: int, purpose: Purpose, count: int = 1) -> list[int]:
    """Seeds of their own for each (seed, epoch, purpose), so that a resumed epoch repeats exactly; 0 to 2^63 - 1."""
    words = np.random.SeedSequence((seed, epoch, _STREAMS[purpose])).generate_state(count, np.uint64)
    return [int(word >> np.uint64(1)) for word in words]


def epoch_generator(seed: int, epoch: int, purpose: Purpose) -> torch.Generator:
    """A generator on the CPU, seeded by `epoch_seeds`."""
    return torch.Generator().manual_seed(epoch_seeds(seed, epoch, purpose)[0])


def should_stop(history: Sequence[EpochRow], settings: TrainingSettings) -> bool:
    """Whether early stopping ends the training after the last epoch of `history`."""
    best = best_epoch(history)
    if best is None or history[-1].epoch < settings.min_epochs:
        return False
    return history[-1].epoch - best.epoch >= settings.early_stopping
