from __future__ import annotations

import numpy as np
import pytest

from toolkit.evaluation.stability import best_epoch, loss_spikes, stability


def _history(make_epoch, val_auc, train_auc=None, loss=None):
    n = len(val_auc)
    loss = loss or [1 / (i + 1) for i in range(n)]
    train_auc = train_auc or [0.9] * n
    return [make_epoch(epoch=i + 1, train_loss=loss[i], train_auc=train_auc[i], val_auc=val_auc[i]) for i in range(n)]


def test_spread_by_hand(make_epoch):
    # mean 0.86; squares 4, 1, 0, 1, 4 (1e-4): sum 10e-4, over 4
    spread, *_ = stability(_history(make_epoch, [0.1, 0.5, 0.84, 0.85, 0.86, 0.87, 0.88]))
    assert spread.value == pytest.approx(np.sqrt(10e-4 / 4))
    assert (spread.met, spread.limit) == (True, 0.02)
    assert spread.sentence == (
        "The standard deviation of the validation AUC over the last 5 epochs is 0.016, below the limit of 0.02."
    )


def test_unsteady_auc_fails(make_epoch):
    spread, *_ = stability(_history(make_epoch, [0.7, 0.9, 0.7, 0.9, 0.7]))
    assert spread.met is False
    assert spread.sentence.endswith("is 0.110, not below the limit of 0.02.")


@pytest.mark.parametrize("val_auc", [[], [0.8] * 4, [0.8, 0.8, None, 0.8, 0.8, 0.8]])
def test_spread_is_undefined_without_five_values(make_epoch, val_auc):
    spread, *_ = stability(_history(make_epoch, val_auc))
    assert (spread.value, spread.met) == (None, None)
    assert spread.sentence.startswith("Not defined: it needs a validation AUC in each of the last 5 epochs")


def test_trend_by_hand(make_epoch):
    # moving means of three: 7, 6, 5, 3, 4; their ranks 5 4 3 1 2 against 1 2 3 4 5:
    # differences 4 2 0 3 3 -> squares 16 4 0 9 9 = 38; rho = 1 - 6 * 38 / (5 * 24) = -0.9
    loss = [8.0, 7, 6, 5, 4, 0, 8]
    _, trend, *_ = stability(_history(make_epoch, [0.8] * 7, loss=loss))
    assert trend.value == pytest.approx(-0.9)
    assert trend.met is True


def test_rising_loss_fails(make_epoch):
    _, trend, *_ = stability(_history(make_epoch, [0.8] * 8, loss=[float(i) for i in range(8)]))
    assert (trend.value, trend.met) == (pytest.approx(1), False)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ([3.0, 2, 1, 0.5, 0.4, 0.3], "it needs 7 epochs, and there are 6"),
        ([0.7] * 8, "stayed at 0.7"),
        ([3.0, 2, float("nan"), 1, 1, 1, 1, 1], "loss of epoch 3 is not finite"),
    ],
)
def test_trend_is_undefined(make_epoch, loss, words):
    _, trend, *_ = stability(_history(make_epoch, [0.8] * len(loss), loss=loss))
    assert (trend.value, trend.met) == (None, None)
    assert words in trend.sentence


def test_best_is_highest_auc_then_lowest_loss_then_earliest(make_epoch):
    values = [(0.8, 0.5), (0.9, 0.7), (0.9, 0.6), (0.9, 0.6), (None, 0.1)]
    rows = [make_epoch(epoch=n, train_loss=1.0, val_auc=a, val_loss=b) for n, (a, b) in enumerate(values, start=1)]
    assert best_epoch(rows) is rows[2]


def test_without_auc_the_loss_decides(make_epoch):
    rows = [
        make_epoch(epoch=n, train_loss=1.0, val_auc=None, val_loss=b) for n, b in enumerate((0.5, 0.3, 0.4), start=1)
    ]
    assert best_epoch(rows) is rows[1]


def test_nan_never_blocks_the_best(make_epoch):
    nan = float("nan")
    values = [(nan, nan), (0.6, nan), (0.6, 0.7)]
    rows = [make_epoch(epoch=n, train_loss=1.0, val_auc=a, val_loss=b) for n, (a, b) in enumerate(values, start=1)]
    assert best_epoch(rows) is rows[2]
    assert best_epoch(rows[:2]) is rows[1]


def test_gap_is_that_of_the_earliest_best_epoch(make_epoch):
    rows = _history(make_epoch, [0.7, 0.9, 0.9, 0.8], train_auc=[0.75, 0.95, 0.99, 1.0])
    _, _, gap, _ = stability(rows)
    assert best_epoch(rows) is rows[1]
    assert (gap.value, gap.met, gap.limit) == (pytest.approx(0.05), True, 0.1)
    assert "best epoch, 2," in gap.sentence


def test_over_fitting_fails(make_epoch):
    _, _, gap, _ = stability(_history(make_epoch, [0.8], train_auc=[0.95]))
    assert (gap.value, gap.met) == (pytest.approx(0.15), False)


def test_gap_is_undefined(make_epoch):
    _, _, no_validation, _ = stability(_history(make_epoch, [None, None]))
    _, _, no_training, _ = stability([make_epoch(epoch=1, train_loss=1.0, train_auc=None)])
    assert (no_validation.met, no_training.met) == (None, None)
    assert no_validation.sentence == "Not defined: no epoch has a validation AUC."
    assert no_training.sentence == "Not defined: the best epoch, 1, has no training AUC."
    assert best_epoch([]) is None


def test_loss_spikes_by_hand():
    calm = [1.0] * 12
    assert loss_spikes(calm[:10]) is None  # ten steps make the first median
    assert loss_spikes(calm) == 0
    # steps 11 to 16 are judged: 3.0 is not above 3 x 1, 3.1 and NaN are; the median stays 1
    assert loss_spikes([*[1.0] * 10, 3.0, 3.1, float("nan"), 1.0, 1.0, 1.0]) == 2 / 6


def test_running_median_forgets():
    # the last step is judged by the 50 before it, all 1; the median of all would be 10
    assert loss_spikes([10.0] * 60 + [1.0] * 50 + [4.0]) == 1 / 101


def test_peak_by_hand(make_epoch):
    # epoch 4 is best; around it 0.80, 0.84, 0.82, 0.86: mean 0.83; the others do not count
    *_, peak = stability(_history(make_epoch, [0.1, 0.80, 0.84, 0.90, 0.82, 0.86, 0.2]))
    assert peak.value == pytest.approx(0.07)
    assert (peak.met, peak.limit) == (False, 0.04)
    assert peak.sentence == (
        "The validation AUC of the best epoch, 4, less the mean of the 4 epochs around it is 0.070, not below the limit"
        " of 0.04."
    )


def test_a_last_epoch_is_held_against_those_before(make_epoch):
    *_, peak = stability(_history(make_epoch, [0.1, 0.80, None, 0.83, 0.84]))
    assert peak.value is None  # epoch 3 has none, so there is one neighbour only
    assert "it is there in 1" in peak.sentence
    *_, peak = stability(_history(make_epoch, [0.1, 0.80, 0.82, 0.83, 0.84]))
    assert (peak.value, peak.met) == (pytest.approx(0.84 - 0.825), True)


@pytest.mark.parametrize("val_auc", [[], [None] * 5])
def test_peak_is_undefined_without_an_auc(make_epoch, val_auc):
    *_, peak = stability(_history(make_epoch, val_auc))
    assert (peak.value, peak.met) == (None, None)


def test_a_run_that_stops_early_looks_steady_and_its_choice_was_luck(make_epoch):
    # wild for five epochs, then stuck; stopped in epoch 12
    history = _history(make_epoch, [0.6, 0.55, 0.71, 0.5, 0.88, 0.6, 0.7, 0.7, 0.71, 0.7, 0.71, 0.7])
    spread, *_, peak = stability(history)
    assert (spread.met, peak.met) == (True, False)
