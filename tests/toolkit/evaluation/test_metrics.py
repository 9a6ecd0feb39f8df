from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from toolkit.errors import GradeError
from toolkit.evaluation.metrics import Interval, auc, evaluate, reliability_bins, roc_points

# 2 LGG, 3 HGG; at 0.5: LGG 0.2 right, LGG 0.6 wrong, HGG 0.4 wrong, HGG 0.6 and 0.9 right.
GRADE = [0, 0, 1, 1, 1]
PROBABILITY = [0.2, 0.6, 0.4, 0.6, 0.9]


def test_auc_by_hand():
    # of six pairs (HGG, LGG): 0.4 > 0.2, 0.6 > 0.2, 0.9 > 0.2, 0.9 > 0.6 won, 0.6 = 0.6 half, 0.4 < 0.6 lost
    assert auc(GRADE, PROBABILITY) == pytest.approx(4.5 / 6)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=30))
def test_auc_is_that_of_scikit_learn(pairs):
    grade, score = zip(*pairs, strict=True)
    if len(set(grade)) == 1:
        assert auc(grade, score) is None
    else:
        assert auc(grade, score) == pytest.approx(sk.roc_auc_score(grade, score))


@pytest.mark.parametrize(
    ("grade", "score"), [([], []), ([1, 1], [0.2, 0.9]), ([0, 0], [0.2, 0.9]), ([0, 1], [0.1, float("nan")])]
)
def test_undefined_auc_is_none(grade, score):
    assert auc(grade, score) is None


def test_auc_takes_infinite_scores_in_their_order():
    assert auc([0, 0, 1, 1], [-np.inf, 1, 1, np.inf]) == pytest.approx(3.5 / 4)


def test_evaluate_by_hand():
    found = evaluate(GRADE, PROBABILITY, threshold=0.5)
    assert found.cases == {"LGG": 2, "HGG": 3}
    assert found.confusion.model_dump() == {"true_hgg": 2, "missed_hgg": 1, "false_hgg": 1, "true_lgg": 1}
    assert found.sensitivity.value == pytest.approx(2 / 3)
    assert found.specificity.value == pytest.approx(1 / 2)
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.balanced_accuracy.value == pytest.approx(7 / 12)
    assert found.brier.value == pytest.approx((0.2**2 + 0.6**2 + 0.6**2 + 0.4**2 + 0.1**2) / 5)
    assert found.log_loss.value == pytest.approx(-np.log(0.8 * 0.4 * 0.4 * 0.6 * 0.9) / 5)


def test_a_probability_at_the_threshold_is_hgg():
    assert evaluate([0, 1], [0.3, 0.7], threshold=0.7).confusion.true_hgg == 1


def test_values_are_those_of_scikit_learn(cohort):
    found = evaluate(cohort.grade, cohort.probability, threshold=0.6)
    decided = cohort.probability >= 0.6
    expected = {
        "auc": sk.roc_auc_score(cohort.grade, cohort.probability),
        "balanced_accuracy": sk.balanced_accuracy_score(cohort.grade, decided),
        "accuracy": sk.accuracy_score(cohort.grade, decided),
        "sensitivity": sk.recall_score(cohort.grade, decided),
        "specificity": sk.recall_score(cohort.grade, decided, pos_label=0),
        "brier": sk.brier_score_loss(cohort.grade, cohort.probability),
        "log_loss": sk.log_loss(cohort.grade, cohort.probability),
    }
    for name, value in expected.items():
        interval = getattr(found, name)
        assert interval.value == pytest.approx(value), name
        assert interval.low < value < interval.high, name
    assert found.notes == ()


def _pair_auc(hgg, lgg):
    difference = hgg[:, None] - lgg[None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def test_auc_interval_is_that_of_a_bootstrap_written_out(cohort):
    """Efron's BCa, resample by resample, within each class."""
    rng = np.random.default_rng(11)
    lgg, hgg = cohort.probability[cohort.grade == 0], cohort.probability[cohort.grade == 1]
    value = _pair_auc(hgg, lgg)
    drawn = np.array([_pair_auc(rng.choice(hgg, hgg.size), rng.choice(lgg, lgg.size)) for _ in range(4000)])
    bias = norm.ppf(((drawn < value).mean() + (drawn <= value).mean()) / 2)
    # influence of each patient, by leaving it out; each class with its own size
    of_hgg = np.array([_pair_auc(np.delete(hgg, i), lgg) for i in range(hgg.size)])
    of_lgg = np.array([_pair_auc(hgg, np.delete(lgg, i)) for i in range(lgg.size)])
    influence = [(n - 1) * (left.mean() - left) / n for n, left in ((hgg.size, of_hgg), (lgg.size, of_lgg))]
    third = sum((part**3).sum() for part in influence)
    second = sum((part**2).sum() for part in influence)
    skew = third / (6 * second**1.5)
    limits = []
    for share in (0.025, 0.975):
        z = bias + norm.ppf(share)
        limits.append(np.quantile(drawn, norm.cdf(bias + z / (1 - skew * z))))
    found = evaluate(cohort.grade, cohort.probability, 0.5).auc
    assert [found.low, found.high] == pytest.approx(limits, abs=0.015)


def test_auc_interval_agrees_with_delong(cohort):
    """DeLong et al. 1988, its variance from each patient's placement among the other class, on the logit scale."""
    lgg, hgg = cohort.probability[cohort.grade == 0], cohort.probability[cohort.grade == 1]
    wins = (hgg[:, None] > lgg[None, :]).astype(float)  # (42, 15)
    error = np.sqrt(wins.mean(1).var(ddof=1) / hgg.size + wins.mean(0).var(ddof=1) / lgg.size)
    found = evaluate(cohort.grade, cohort.probability, 0.5).auc
    half = 1.96 * error / (found.value * (1 - found.value))
    assert found.low == pytest.approx(expit(logit(found.value) - half), abs=0.03)
    assert found.high == pytest.approx(expit(logit(found.value) + half), abs=0.03)


def test_interval_of_a_proportion_is_wilsons():
    # 15 of 15, by hand: low = n / (n + z^2), z = 1.959964
    found = evaluate([0] * 15 + [1] * 15, [0.1] * 15 + [0.9] * 15, 0.5)
    assert found.sensitivity == pytest.approx((1, 15 / (15 + 1.959964**2), 1))
    assert found.specificity == found.sensitivity


def test_same_patients_give_the_same_intervals(cohort):
    first = evaluate(cohort.grade, cohort.probability, 0.5)
    assert evaluate(cohort.grade, cohort.probability, 0.5) == first


def test_perfect_grader_gets_no_invented_certainty():
    found = evaluate([0] * 5 + [1] * 5, np.linspace(0.1, 0.9, 10), 0.5)
    assert found.auc == Interval(1.0, None, None)
    assert found.brier.low is not None
    assert "the same value of accuracy, auc, balanced accuracy" in found.notes[0]


def test_one_class_leaves_undefined_what_needs_two():
    found = evaluate([1] * 6, [0.3, 0.6, 0.7, 0.7, 0.8, 0.9], 0.5)
    undefined = Interval(None, None, None)
    assert (found.auc, found.balanced_accuracy, found.specificity) == (undefined, undefined, undefined)
    assert found.sensitivity.value == pytest.approx(5 / 6)
    assert found.brier.low < found.brier.value < found.brier.high
    assert "No patient is LGG" in found.notes[0]


def test_single_patient_of_a_class_gives_values_without_bootstrap():
    found = evaluate([0, 1, 1, 1], [0.5, 0.4, 0.7, 0.8], 0.5)
    assert found.auc == Interval(pytest.approx(2 / 3), None, None)
    assert found.specificity.low is not None
    assert found.notes == ("One patient only is LGG: resampling says nothing about it, so no bootstrap intervals.",)


def test_certain_and_wrong_costs_a_finite_loss():
    found = evaluate([0, 0, 1, 1], [1.0, 0.0, 0.0, 1.0], 0.5)
    assert found.log_loss.value == pytest.approx(sk.log_loss([0, 0, 1, 1], [1.0, 0.0, 0.0, 1.0]))


def test_metrics_survive_json(cohort):
    found = evaluate(cohort.grade, cohort.probability, 0.5)
    text = found.model_dump_json()
    assert "NaN" not in text
    assert type(found).model_validate(json.loads(text)) == found


@pytest.mark.parametrize(
    ("grade", "probability", "words"),
    [
        ([], [], "at least one patient"),
        ([0, 1], [0.5], "one of each per patient"),
        ([0, 2], [0.5, 0.5], r"\[0, 2\] are not all 0"),
        ([0, 1], [0.5, float("nan")], "nan of patient number 2"),
        ([0, 1], [1.2, 0.5], "1.2 of patient number 1"),
    ],
)
def test_wrong_input_is_named(grade, probability, words):
    with pytest.raises(GradeError, match=words):
        evaluate(grade, probability, 0.5)


def test_roc_points_by_hand():
    curve = roc_points(GRADE, PROBABILITY)
    assert curve.false_positive_rate == pytest.approx([0, 0, 0.5, 0.5, 1])
    assert curve.sensitivity == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_roc_points_are_those_of_scikit_learn(cohort):
    curve = roc_points(cohort.grade, cohort.probability)
    fpr, tpr, _ = sk.roc_curve(cohort.grade, cohort.probability, drop_intermediate=False)
    assert curve.false_positive_rate == pytest.approx(fpr)
    assert curve.sensitivity == pytest.approx(tpr)


def test_roc_of_one_class_is_none():
    assert roc_points([1, 1], [0.2, 0.3]) is None


def test_reliability_bins_by_hand():
    low, middle, high = reliability_bins(GRADE, PROBABILITY, bins=3)
    assert (low.cases, low.predicted, low.observed.value) == (1, pytest.approx(0.2), 0)
    assert (middle.cases, middle.predicted, middle.observed.value) == (3, pytest.approx(1.6 / 3), pytest.approx(2 / 3))
    assert (high.cases, high.predicted, high.observed.value) == (1, pytest.approx(0.9), 1)


def test_reliability_bins_are_those_of_scikit_learn(cohort):
    bins = reliability_bins(cohort.grade, cohort.probability)
    observed, predicted = calibration_curve(cohort.grade, cohort.probability, n_bins=5)
    assert [one.predicted for one in bins] == pytest.approx(predicted)
    assert [one.observed.value for one in bins] == pytest.approx(observed)
    assert sum(one.cases for one in bins) == 57
