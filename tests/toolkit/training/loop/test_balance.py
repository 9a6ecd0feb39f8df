from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from toolkit.config import TrainingSettings, load_settings
from toolkit.errors import SettingsError
from toolkit.training.loop.balance import (
    check_conflicts,
    conflicts,
    drw_weights,
    epoch_order,
    ldam_margins,
    sample_loss,
)
from toolkit.training.loop.schedule import epoch_generator


def preset(name: str, *overrides: str) -> TrainingSettings:
    return load_settings(None, name, overrides).training


def test_margins_by_hand() -> None:
    # 16^(-1/4) = 1/2, 81^(-1/4) = 1/3
    margins = ldam_margins(torch.tensor([16, 81]), 0.3)
    torch.testing.assert_close(margins, torch.tensor([0.3, 0.2]))


def test_ldam_against_numpy() -> None:
    grades = torch.tensor([0] * 52 + [1] * 147)
    loss_of = sample_loss(preset("ldam", "training.drw_epoch=5"), grades, epoch=1)
    rng = np.random.default_rng(0)
    cosine, y = rng.uniform(-1, 1, (40, 2)), rng.integers(0, 2, 40)
    # Cao 2019, equation 13: -log(exp(z_y - m_y) / (exp(z_y - m_y) + sum of exp(z_j), j != y)), z = s * cosine, s * m
    s, m = 12.0, np.array([52.0, 147.0]) ** -0.25
    m *= 0.15 / m.max()
    expected = []
    for c, grade in zip(cosine, y, strict=True):
        own, other = math.exp(s * (c[grade] - m[grade])), math.exp(s * c[1 - grade])
        expected.append(-math.log(own / (own + other)))
    found = loss_of(torch.tensor(s * cosine, dtype=torch.float32), torch.tensor(y))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_drw_weights_by_hand() -> None:
    # beta 0.5: effective numbers 1.5 and 1.75; inverses 2/3 and 4/7, scaled to a sum of 2
    torch.testing.assert_close(drw_weights(torch.tensor([2, 3]), 0.5), torch.tensor([14 / 13, 12 / 13]))


def test_drw_of_brats_is_inverse_frequency_to_one_percent() -> None:
    weights = drw_weights(torch.tensor([52, 147]), 0.9999)
    assert (weights[0] / weights[1]).item() == pytest.approx(147 / 52, rel=0.01)
    assert weights.mean().item() == pytest.approx(1)


def test_class_weights_by_hand() -> None:
    grades = torch.tensor([0, 1, 1, 1])
    loss_of = sample_loss(TrainingSettings(sampler="shuffle", class_weights=True), grades, 1)
    torch.testing.assert_close(loss_of.weights, torch.tensor([2.0, 2 / 3]))  # 4 / (2 * 1), 4 / (2 * 3)
    # a logit difference of 0 costs log 2 of either grade; over the cohort the mean weight is 1
    assert loss_of(torch.zeros(4, 2), grades).mean().item() == pytest.approx(math.log(2))


def test_class_weights_and_reweighting_multiply() -> None:
    grades = torch.tensor([0, 0, 1, 1, 1])
    settings = TrainingSettings(sampler="shuffle", class_weights=True, drw_epoch=1, drw_beta=0.5)
    # 5/4 and 5/6 times the weights of the test above
    torch.testing.assert_close(sample_loss(settings, grades, 1).weights, torch.tensor([35 / 26, 10 / 13]))


def test_reweighting_starts_in_its_epoch() -> None:
    grades = torch.tensor([0, 1, 1, 1])
    settings = TrainingSettings(sampler="shuffle", drw_epoch=3)
    assert sample_loss(settings, grades, 2).weights is None
    logits, y = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 1])
    loss_of = sample_loss(settings, grades, 3)
    assert loss_of.weights is not None
    plain = functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(loss_of(logits, y), plain * drw_weights(torch.tensor([1, 3]), 0.9999)[y])


def test_cross_entropy_with_label_smoothing() -> None:
    settings = TrainingSettings(label_smoothing=0.1)
    logits, y = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    log_p = logits.log_softmax(1)
    expected = -(0.95 * log_p[range(5), y] + 0.05 * log_p[range(5), 1 - y])
    torch.testing.assert_close(sample_loss(settings, torch.tensor([0, 1]), 1)(logits, y), expected)


def test_weighted_sampler_draws_both_grades_equally_often() -> None:
    grades = torch.tensor([0] * 52 + [1] * 147)
    orders = torch.cat([epoch_order(grades, "weighted", epoch_generator(0, e, "sampler")) for e in range(1, 51)])
    hgg = int(grades[orders].sum())
    assert stats.binomtest(hgg, len(orders), 0.5).pvalue > 0.001
    within = torch.bincount(orders[orders < 52], minlength=52).numpy()
    assert stats.chisquare(within).pvalue > 0.001  # every LGG patient as often as another


def test_weighted_sampler_weighs_as_torch_does() -> None:
    grades = torch.tensor([0, 1, 1, 1, 1, 0, 1])
    weights = [1 / 2, 1 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 2, 1 / 5]
    theirs = torch.utils.data.WeightedRandomSampler(weights, 7, generator=torch.Generator().manual_seed(4))
    mine = epoch_order(grades, "weighted", torch.Generator().manual_seed(4))
    assert mine.tolist() == list(theirs)


def test_shuffle_visits_everybody_once() -> None:
    order = epoch_order(torch.zeros(30, dtype=torch.int64), "shuffle", epoch_generator(0, 1, "sampler"))
    assert sorted(order.tolist()) == list(range(30))
    assert order.tolist() != list(range(30))


@pytest.mark.parametrize("name", ["stable", "ldam"])
def test_presets_without_conflicts(name: str) -> None:
    assert conflicts(preset(name)) == ()
    assert check_conflicts(load_settings(None, name), allow=False) == ()


def test_conflicts_of_legacy() -> None:
    found = conflicts(preset("legacy"))
    assert len(found) == 4
    mechanisms, late, head, batch = found
    assert "3 balancing mechanisms" in mechanisms
    assert "starts in epoch 25" in late
    assert "after epoch 10" in late
    assert "5 times" in head
    assert "sees 4 patients" in batch
    assert check_conflicts(load_settings(None, "legacy"), allow=False) == found


@pytest.mark.parametrize(
    "overrides, count",
    [
        (("training.loss=ldam",), 1),  # with the weighted sampler of `stable`
        (("training.drw_epoch=1",), 1),
        (("training.drw_epoch=1", "training.sampler=shuffle"), 0),
        (("training.loss=ldam", "training.sampler=shuffle"), 0),
        # stable: early stopping 10, at least 15 epochs
        (("training.drw_epoch=15", "training.sampler=shuffle"), 0),
        (("training.drw_epoch=16", "training.sampler=shuffle"), 1),
        (("training.drw_epoch=11", "training.sampler=shuffle", "training.min_epochs=3"), 0),
        (("training.drw_epoch=12", "training.sampler=shuffle", "training.min_epochs=3"), 1),
        (("training.drw_epoch=41", "training.sampler=shuffle"), 1),
        (("training.class_weights=true",), 1),
        (("training.class_weights=true", "training.sampler=shuffle"), 0),
        (("training.class_weights=true", "training.sampler=shuffle", "training.loss=ldam"), 1),
        (("training.head_lr=3e-4",), 0),
        (("training.head_lr=3.1e-4",), 1),
        (("training.batch_size=7", "training.accumulation=1"), 1),
        (("training.batch_size=8", "training.accumulation=1"), 0),
    ],
)
def test_each_conflict_alone(overrides: tuple[str, ...], count: int) -> None:
    settings = load_settings(None, "stable", overrides)
    assert len(conflicts(settings.training)) == count
    if count:
        with pytest.raises(SettingsError, match="--allow-conflicts"):
            check_conflicts(settings, allow=False)
        assert check_conflicts(settings, allow=True) == conflicts(settings.training)
