from __future__ import annotations

import math
import warnings

import pytest
import torch

from toolkit.config import TrainingSettings
from toolkit.training.loop.schedule import Purpose, accumulation_groups, epoch_seeds, lr_factor, should_stop
from toolkit.training.runs.run import EpochRow


def row(epoch: int, auc: float | None = 0.5, loss: float = 1.0) -> EpochRow:
    return EpochRow(
        epoch=epoch,
        train_loss=1.0,
        train_auc=None,
        val_loss=loss,
        val_auc=auc,
        lr=1,
        head_lr=1,
        seconds=1,
        images_per_second=1,
    )


def rows(*aucs: float | None) -> list[EpochRow]:
    return [row(i, auc) for i, auc in enumerate(aucs, start=1)]


def test_lr_by_hand() -> None:
    # 3 steps of rise in quarters, then half a cosine over 4 steps
    expected = [0.25, 0.5, 0.75, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    assert [lr_factor(step, 3, 7) for step in range(7)] == pytest.approx(expected)
    assert lr_factor(0, 0, 5) == 1


@pytest.mark.parametrize("warmup, total", [(5, 40), (1, 3), (12, 100)])
def test_lr_against_torch(warmup: int, total: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, total_iters=warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR steps with a deprecated argument
        both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
        for step in range(total):
            assert lr_factor(step, warmup, total) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
            optimizer.step()
            both.step()


def test_warmup_longer_than_the_training() -> None:
    assert [lr_factor(step, 9, 3) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "count, batch, accumulation, sizes",
    [
        (8, 2, 2, [[2, 2], [2, 2]]),
        (10, 2, 2, [[2, 2], [2, 2], [2]]),  # the last step is shorter, and not lost
        (9, 4, 2, [[4, 5]]),  # no batch of one
        (5, 4, 2, [[5]]),
        (2, 4, 2, [[2]]),
        (3, 2, 1, [[3]]),
        (3, 1, 2, [[1, 1], [1]]),
    ],
)
def test_groups(count: int, batch: int, accumulation: int, sizes: list[list[int]]) -> None:
    order = torch.randperm(count)
    groups = accumulation_groups(order, batch, accumulation)
    assert [[len(b) for b in group] for group in groups] == sizes
    assert torch.equal(torch.cat([b for group in groups for b in group]), order)


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_no_cohort_leaves_a_batch_of_one(batch: int) -> None:
    for count in range(2, 30):
        groups = accumulation_groups(torch.arange(count), batch, 2)
        assert min(len(b) for group in groups for b in group) >= 2


def test_a_last_batch_for_every_rank() -> None:
    assert [[len(b) for b in group] for group in accumulation_groups(torch.arange(10), 4, 2, least=3)] == [[4, 6]]


def test_seeds_differ_by_seed_epoch_and_purpose() -> None:
    purposes: tuple[Purpose, ...] = ("sampler", "augmentation", "dropout")
    seeds = {one for s in range(5) for e in range(1, 6) for p in purposes for one in epoch_seeds(s, e, p, 4)}
    assert len(seeds) == 300
    assert all(0 <= s < 2**63 for s in seeds)
    assert epoch_seeds(1, 2, "sampler", 2) == epoch_seeds(1, 2, "sampler", 5)[:2]


def test_early_stopping() -> None:
    settings = TrainingSettings(early_stopping=2, min_epochs=0)
    assert not should_stop([], settings)
    assert not should_stop(rows(0.9, 0.8), settings)
    assert should_stop(rows(0.9, 0.8, 0.7), settings)
    assert not should_stop(rows(0.8, 0.7, 0.9, 0.8), settings)
    assert not should_stop(rows(0.9, 0.8, 0.7), settings.model_copy(update={"min_epochs": 4}))
    assert should_stop(rows(0.9, 0.8, 0.7, 0.7), settings.model_copy(update={"min_epochs": 4}))
