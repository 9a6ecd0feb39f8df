from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from toolkit.config import CalibrationSettings
from toolkit.errors import GradeError
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.calibration_fit import choose_threshold, fit_calibration

PLATT = CalibrationSettings()


def _logistic(logit, grade, intercept):
    """The same fit by scikit-learn: each patient twice, with the smoothed target and its rest as weights."""
    n0, n1 = np.bincount(grade)
    target = np.where(grade == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    model = LogisticRegression(C=1e12, fit_intercept=intercept, tol=1e-10, max_iter=10000)
    twice = np.concatenate([logit, logit])[:, None]
    model.fit(twice, np.repeat([1, 0], logit.size), np.concatenate([target, 1 - target]))
    return model.coef_[0, 0], model.intercept_[0] if intercept else 0.0


def _identity(found):
    return (found.method, found.a, found.b, found.threshold) == ("none", 1, 0, 0.5)


def test_platt_is_the_fit_of_scikit_learn(cohort):
    found = fit_calibration(cohort.logit, cohort.grade, PLATT)
    assert (found.a, found.b) == pytest.approx(_logistic(cohort.logit, cohort.grade, True), abs=1e-4)
    assert found.method == "platt"
    assert found.cases == {"LGG": 15, "HGG": 42}
    assert found.notes == ()


def test_platt_by_hand():
    """Logits of -1 and +1 only: the fit must return the mean smoothed target at each."""
    grade = np.array([0] * 6 + [1] * 6)
    logit = np.array([-1] * 5 + [1] + [-1] + [1] * 5, dtype=float)
    found = fit_calibration(logit, grade, PLATT)
    at_plus = (5 * 7 / 8 + 1 / 8) / 6
    assert found.probability([-1.0, 1.0]) == pytest.approx([1 - at_plus, at_plus])
    assert found.a == pytest.approx(np.log(at_plus / (1 - at_plus)))
    assert found.b == pytest.approx(0, abs=1e-9)


def test_temperature_is_the_fit_of_scikit_learn_without_intercept(cohort):
    logit = 3 * cohort.logit
    found = fit_calibration(logit, cohort.grade, CalibrationSettings(method="temperature"))
    assert found.a == pytest.approx(_logistic(logit, cohort.grade, False)[0], abs=1e-4)
    assert (found.method, found.b) == ("temperature", 0)


def test_temperature_is_held_inside_its_bounds(cohort):
    found = fit_calibration(1e4 * cohort.logit, cohort.grade, CalibrationSettings(method="temperature"))
    assert found.a == 0.1
    assert "held inside 0.1 to 10" in found.notes[0]


def test_calibrated_logits_are_left_alone():
    # five of each: the smoothed targets are 6/7 and 1/7, whose logits are log 6 and -log 6
    logit = np.log(6) * np.array([-1] * 5 + [1] * 5)
    found = fit_calibration(logit, [0] * 5 + [1] * 5, CalibrationSettings(method="temperature"))
    assert (found.method, found.a, found.b) == ("none", 1, 0)
    assert "would not lower their loss" in found.notes[0]


def test_none_keeps_the_map_and_still_chooses_a_threshold(cohort):
    found = fit_calibration(cohort.logit, cohort.grade, CalibrationSettings(method="none"))
    assert (found.method, found.a, found.b, found.notes) == ("none", 1, 0, ())
    assert found.threshold == choose_threshold(cohort.grade, cohort.probability, "youden")[0] != 0.5


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_separable_logits_give_a_finite_fit(method):
    logit, grade = np.array([-3.0, -2, -2, -1, -1, 1, 1, 2, 2, 3]), np.array([0] * 5 + [1] * 5)
    found = fit_calibration(logit, grade, CalibrationSettings(method=method))
    assert 0 < found.a < 10
    assert found.probability(logit).max() < 0.999
    assert ((found.probability(logit) >= found.threshold) == grade).all()


@pytest.mark.parametrize("method", ["platt", "temperature", "none"])
@pytest.mark.parametrize(
    ("logit", "grade", "words"),
    [
        ([], [], "there were 0 LGG, 0 HGG"),
        (np.arange(9.0), [0] * 4 + [1] * 5, "there were 4 LGG, 5 HGG"),
        (np.arange(12.0), [0] * 2 + [1] * 10, "there were 2 LGG, 10 HGG"),
        (np.arange(12.0), [1] * 12, "there were 0 LGG, 12 HGG"),
        (np.full(12, 0.1), [0] * 5 + [1] * 7, "All 12 logits equal 0.1"),
        (np.arange(12.0), [1] * 6 + [0] * 6, "the wrong way round"),
    ],
)
def test_what_cannot_be_fitted_stays_as_it_is_with_a_note(logit, grade, words, method):
    found = fit_calibration(logit, grade, CalibrationSettings(method=method))
    assert _identity(found)
    assert words in found.notes[0]
    assert found.rule == "youden"


def test_ten_patients_with_three_of_a_class_are_enough():
    found = fit_calibration(np.arange(10.0), [0] * 3 + [1] * 7, PLATT)
    assert found.method == "platt"


@pytest.mark.parametrize("size", [1e-6, 1e4])
def test_size_and_place_of_the_logits_do_not_matter(cohort, size):
    plain = fit_calibration(cohort.logit, cohort.grade, PLATT)
    found = fit_calibration(size * (cohort.logit + 7), cohort.grade, PLATT)
    assert found.probability(size * (cohort.logit + 7)) == pytest.approx(plain.probability(cohort.logit), abs=1e-7)
    assert found.threshold == pytest.approx(plain.threshold, abs=1e-7)


def test_extreme_logits_give_probabilities_of_0_and_1_without_a_warning():
    found = fit_calibration([-1e4] * 5 + [1e4] * 5, [0] * 5 + [1] * 5, CalibrationSettings(method="none"))
    assert found.threshold == 0.5
    assert found.probability([-1e4, 0, 1e4]).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(cohort, bad):
    logit = np.append(cohort.logit[:-1], bad)
    with pytest.raises(GradeError, match="1 of 57 logits are not finite"):
        fit_calibration(logit, cohort.grade, PLATT)
    with pytest.raises(GradeError, match="1 of 57 logits are not finite"):
        fit_calibration(cohort.logit, cohort.grade, PLATT).probability(logit)


@pytest.mark.parametrize(
    ("logit", "grade", "words"), [([1.0], [0, 1], "one of each per patient"), ([1.0, 2.0], [0, 3], "are not all 0")]
)
def test_wrong_input_is_named(logit, grade, words):
    with pytest.raises(GradeError, match=words):
        fit_calibration(logit, grade, PLATT)


# LGG at 0.1, 0.3, 0.6; HGG at 0.4, 0.7, 0.8, 0.9
GRADE = np.array([0, 0, 0, 1, 1, 1, 1])
PROBABILITY = np.array([0.1, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("youden", 0.65),  # J: 1 + 2/3 - 1 at 0.35, 3/4 + 1 - 1 at 0.65
        ("sensitivity=0.75", 0.65),
        ("sensitivity=0.76", 0.35),
        ("cost=5:1", 0.35),  # one false HGG, 1; at 0.65 one missed HGG, 5
        ("cost=1:5", 0.65),
        ("cost=1:1", 0.35),  # one error at 0.35 and at 0.65: the lower misses no HGG
        ("cost=100:1", 0.35),
    ],
)
def test_thresholds_by_hand(rule, threshold):
    assert choose_threshold(GRADE, PROBABILITY, rule) == (pytest.approx(threshold), True)


def test_equal_costs_are_equal_in_spite_of_rounding():
    # at 0.1 three false HGG at 0.1 each; at 0.55 one missed HGG at 0.3: 0.1 * 3 is not 0.3 in floats
    grade, probability = np.array([1, 0, 0, 0, 1]), np.array([0.2, 0.3, 0.4, 0.5, 0.6])
    assert choose_threshold(grade, probability, "cost=0.3:0.1")[0] == pytest.approx(0.1)


def test_all_hgg_is_a_choice_where_missing_one_is_dear():
    grade, probability = np.array([1, 0, 0, 1]), np.array([0.2, 0.3, 0.4, 0.5])
    assert choose_threshold(grade, probability, "cost=10:1") == (pytest.approx(0.1), True)


def test_neighbouring_floats_are_still_told_apart():
    lower, upper = 0.5, np.nextafter(0.5, 1)  # their half-way point rounds to the lower one
    assert choose_threshold(np.array([0, 1]), np.array([lower, upper]), "youden") == (upper, True)


def test_unreachable_sensitivity_is_said():
    grade = [0] * 5 + [1] * 5
    logit = [-2e4] * 4 + [-1e4] * 2 + [1e4] * 4  # one HGG at a probability of exactly 0
    found = fit_calibration(logit, grade, CalibrationSettings(method="none", rule="sensitivity=0.9"))
    assert found.threshold == 0.5
    assert "reaches sensitivity=0.9" in found.notes[0]


def _brute(grade, probability, rule):
    """All decisions that some threshold in (0, 1) gives; the best value of the rule among them."""
    grid = np.unique(np.concatenate([np.linspace(0.001, 0.999, 1999), probability, np.nextafter(probability, 2)]))
    scores = []
    for threshold in grid[(grid > 0) & (grid < 1)]:
        decided = probability >= threshold
        sensitivity, specificity = decided[grade == 1].mean(), (~decided)[grade == 0].mean()
        if rule == "youden":
            scores.append(sensitivity + specificity)
        elif rule == "cost=3:1":
            scores.append(-3 * (~decided)[grade == 1].sum() - decided[grade == 0].sum())
        elif sensitivity >= 0.8:
            scores.append(specificity)
    return max(scores)


@pytest.mark.parametrize("rule", ["youden", "cost=3:1", "sensitivity=0.8"])
@pytest.mark.parametrize("seed", range(5))
def test_threshold_is_as_good_as_any(rule, seed):
    rng = np.random.default_rng(seed)
    grade = np.array([0] * 8 + [1] * 12)
    probability = np.round(rng.beta(1 + 2 * grade, 3 - 2 * grade), 2).clip(0.01, 0.99)  # rounded: with ties
    threshold, reached = choose_threshold(grade, probability, rule)
    assert reached
    decided = probability >= threshold
    sensitivity, specificity = decided[grade == 1].mean(), (~decided)[grade == 0].mean()
    found = {
        "youden": sensitivity + specificity,
        "cost=3:1": -3 * (~decided)[grade == 1].sum() - decided[grade == 0].sum(),
        "sensitivity=0.8": specificity if sensitivity >= 0.8 else -1,
    }[rule]
    assert found == pytest.approx(_brute(grade, probability, rule))


_probability = st.floats(0, 1) | st.sampled_from([0.0, 5e-324, 0.5, np.nextafter(0.5, 1), 1 - 2**-53, 1.0])


@given(
    st.lists(_probability, min_size=2, max_size=20),
    st.sampled_from(["youden", "cost=1:1", "cost=50:1", "sensitivity=0.9"]),
)
def test_threshold_lies_inside_0_and_1(probability, rule):
    grade = np.arange(len(probability)) % 2
    threshold, _ = choose_threshold(grade, np.array(probability), rule)
    assert 0 < threshold < 1


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=10, max_size=24),
    st.sampled_from(["platt", "temperature", "none"]),
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8),
)
def test_map_is_monotone_and_threshold_inside(logit, method, points):
    grade = np.arange(len(logit)) % 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.evaluation.calibration_fit.RESAMPLES", 10)  # of the limits, which are not looked at
        found = fit_calibration(logit, grade, CalibrationSettings(method=method))
    probability = found.probability(np.sort(points))
    assert (np.diff(probability) >= 0).all()
    assert ((probability >= 0) & (probability <= 1)).all()
    assert 0 < found.threshold < 1


def test_probability_keeps_shape_and_is_float64(cohort):
    found = fit_calibration(cohort.logit, cohort.grade, PLATT)
    assert found.probability(np.zeros((2, 3), np.float32)).shape == (2, 3)
    assert found.probability(np.float32(1)).dtype == np.float64


def test_calibration_survives_json_exactly(cohort):
    found = fit_calibration(cohort.logit, cohort.grade, PLATT)
    assert Calibration.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    "change", [{"a": -1}, {"a": float("nan")}, {"threshold": 0}, {"threshold": 1}, {"rule": "best"}, {"extra": 1}]
)
def test_an_altered_file_is_refused(cohort, change):
    content = fit_calibration(cohort.logit, cohort.grade, PLATT).model_dump()
    with pytest.raises(ValidationError):
        Calibration.model_validate(content | change)


def test_calibration_loads_neither_scipy_nor_scikit_learn():
    code = "import sys, toolkit.evaluation.calibration; print(sorted({'scipy', 'sklearn', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threshold_limits_hold_the_threshold_and_widen_with_fewer_patients():
    rng = np.random.default_rng(0)
    widths = []
    for patients in (20, 500):
        grade = np.repeat([0, 1], patients)
        found = fit_calibration(rng.normal(2.0 * grade, 1), grade, CalibrationSettings())
        assert found.threshold_limits is not None
        low, high = found.threshold_limits
        assert 0 < low <= found.threshold <= high < 1
        widths.append(high - low)
    assert widths[1] < widths[0]
    few = fit_calibration([0.0, 1, 2], [0, 1, 1], CalibrationSettings())
    assert few.threshold_limits is None


def test_what_decided_the_threshold_is_said() -> None:
    given = {"method": "none", "a": 1.0, "b": 0.0, "threshold": 0.5, "rule": "youden", "cases": {"LGG": 1, "HGG": 1}}
    assert Calibration(**given).decided == "by default, not by the rule youden"
    assert Calibration(**given, threshold_limits=(0.4, 0.6)).decided == "by the rule youden"
