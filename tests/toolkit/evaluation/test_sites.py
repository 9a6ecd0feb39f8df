import numpy as np
import pytest

from toolkit.evaluation.sites import auc_by_site, auc_without_site, site_only

# BraTS 2018: every source is pure but `2013`, which gave 20 HGG and 10 LGG.
SITES = ["CBICA"] * 88 + ["TCIA01"] * 102 + ["2013"] * 30 + ["TCIA09"] * 65
GRADES = [1] * 190 + [1] * 20 + [0] * 10 + [0] * 65


def test_brats_2018_by_hand():
    found = site_only(GRADES, SITES)
    # Wrongly ordered pairs: 10 LGG against 20 HGG of one site count half each, of 75 x 210 pairs.
    assert found.auc == pytest.approx(1 - 10 * 20 / 2 / (75 * 210))
    assert found.accuracy == pytest.approx(275 / 285)
    assert found.sites["2013"] == (10, 20)
    assert "AUC 0.994 and accuracy 0.965" in found.sentence
    assert "scanner recognition" in found.warning


def test_a_fair_cohort_is_not_warned_about():
    found = site_only([0, 1, 0, 1], ["A", "A", "B", "B"])
    assert found.auc == 0.5
    assert found.warning is None


def test_unknown_sites():
    assert site_only([0, 1], [None, None]) is None
    assert site_only([0, 1, 1], ["A", None, None]).sites == {"A": (1, 0), "unknown": (0, 2)}


def test_inside_and_without_a_site():
    rng = np.random.default_rng(0)
    site = ["A"] * 20 + ["B"] * 20 + ["C"] * 4
    grade = np.array([0, 1] * 10 + [1] * 20 + [0, 1, 0, 1])
    score = np.concatenate([grade[:20] + rng.normal(0, 0.1, 20), rng.normal(size=24)])
    assert auc_by_site(grade, score, site) == {"A": 1.0}  # B is pure, C too small
    without = auc_without_site(grade, score, site)
    assert set(without) == {"A", "B", "C"}
    assert without["C"] == pytest.approx(
        np.mean([(score[i] > score[j]) for i in range(40) for j in range(40) if grade[i] > grade[j]])
    )
