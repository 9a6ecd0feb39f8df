"""Conformal sets: values by hand, and coverage on simulated patients."""

import numpy as np
import pytest
from scipy.stats import betabinom, binomtest

from toolkit.errors import GradeError
from toolkit.evaluation.conformal import Conformal, count_singles, fit_conformal, upper_limit


def test_limits_by_hand():
    hgg = np.linspace(0.05, 0.95, 19)  # floor(0.1 * 20) = 2 may lie below: the second smallest
    lgg = np.arange(9) / 10  # floor(0.1 * 10) = 1 may lie above: the largest
    found = fit_conformal(np.concatenate([lgg, hgg]), np.repeat([0, 1], [9, 19]))
    assert found.hgg_from == pytest.approx(0.10)
    assert found.lgg_to == pytest.approx(0.8)
    assert found.cases == {"LGG": 9, "HGG": 19}
    assert found.missing == ()


@pytest.mark.parametrize(
    ("limits", "p", "grades"),
    [
        ((0.3, 0.6), 0.2, ("LGG",)),
        ((0.3, 0.6), 0.3, ("LGG", "HGG")),
        ((0.3, 0.6), 0.6, ("LGG", "HGG")),
        ((0.3, 0.6), 0.7, ("HGG",)),
        ((0.8, 0.2), 0.5, ()),
        ((None, 0.6), 0.1, ("LGG", "HGG")),
        ((0.3, None), 0.9, ("LGG", "HGG")),
    ],
)
def test_sets(limits, p, grades):
    conformal = Conformal(rate=0.1, cases={"LGG": 1, "HGG": 1}, hgg_from=limits[0], lgg_to=limits[1])
    assert conformal.grades(p) == grades


def test_too_few_patients_give_no_limit():
    found = fit_conformal(np.linspace(0.1, 0.9, 17), np.repeat([0, 1], [8, 9]))
    assert found.lgg_to is None
    assert found.hgg_from is not None
    assert found.missing == ("LGG",)
    assert upper_limit(np.arange(18.0), 0.05) is None
    assert upper_limit(np.arange(19.0), 0.05) == 18
    assert upper_limit(np.arange(29.0), 0.1) == 26  # 0.1 * 30 is not 3 in floating point; three of 29 lie at or above


@pytest.mark.parametrize("cases", [9, 15, 42])
def test_coverage_of_each_grade_is_that_of_theory(cases):
    """Of 4000 simulated cohorts of two grades, each judged on 50 new patients of each grade.

    With n validation patients the covered count of m new ones is beta-binomial with n + 1 - k and
    k = floor(0.1 (n + 1)) (Vovk 2012), whatever the scores; the mean over cohorts agrees with it and is 0.9 or above.
    """
    rng, cohorts, new = np.random.default_rng(cases), 4000, 50
    k = (cases + 1) // 10
    wanted = betabinom(new, cases + 1 - k, k)
    covered = np.empty((2, cohorts))
    for i in range(cohorts):
        p = [1 / (1 + np.exp(-rng.normal(mean, 1.5, cases + new))) for mean in (-1, 1)]
        fitted = fit_conformal(np.concatenate([p[0][:cases], p[1][:cases]]), np.repeat([0, 1], cases))
        for grade, name in enumerate(("LGG", "HGG")):
            covered[grade, i] = sum(name in fitted.grades(q) for q in p[grade][cases:])
    assert wanted.mean() >= 0.9 * new
    for grade in range(2):
        assert covered[grade].mean() == pytest.approx(wanted.mean(), abs=4 * wanted.std() / np.sqrt(cohorts))
        assert covered[grade].std() == pytest.approx(wanted.std(), rel=0.1)


def test_refusals():
    with pytest.raises(GradeError, match="one of each per patient"):
        fit_conformal([0.1, 0.2], [1])
    with pytest.raises(GradeError, match="from 0 to 1"):
        fit_conformal([0.1, np.nan], [0, 1])


def test_single_grades_by_hand() -> None:
    """HGG alone from 0.6 on, LGG alone below 0.3; the threshold is 0.5."""
    limits = Conformal(rate=0.1, cases={"LGG": 9, "HGG": 9}, hgg_from=0.3, lgg_to=0.6)
    reference = {"LGG": (0.1, 0.2, 0.4, 0.7), "HGG": (0.25, 0.65, 0.8, 0.9)}
    found = count_singles(limits, 0.5, reference)
    assert {grade: counts[:2] for grade, counts in found.items()} == {"LGG": (3, 1), "HGG": (4, 1)}
    for counts in found.values():
        wilson = binomtest(counts.wrong, counts.answers).proportion_ci(0.95, method="wilson")
        assert counts[2:] == pytest.approx((wilson.low, wilson.high), abs=1e-12)
    assert count_singles(limits, 0.5, {"HGG": (0.9,)})["HGG"][1:3] == (0, 0.0)
    assert count_singles(limits, 0.5, {"LGG": (0.9,)})["HGG"][3] == 1.0
    assert count_singles(limits, 0.5, {}) == {}
    # A threshold above the set's limit: HGG alone is possible, but LGG is decided, so that it is no single grade.
    assert count_singles(limits, 0.9, {"HGG": (0.7,)}) == {}
