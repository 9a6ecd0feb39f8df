from __future__ import annotations

import numpy as np
import pytest

from toolkit.data.measures import Measures
from toolkit.evaluation.baselines import Side, baselines, site_probability
from toolkit.evaluation.metrics import auc


def side(grade: list[int], sites: list[str | None], rows: np.ndarray | None = None) -> Side:
    return Side(np.array(grade), sites, np.zeros((len(grade), 2)) if rows is None else rows)


def test_site_by_hand() -> None:
    training = side([0, 0, 1, 1, 1, 1], ["a", "a", "a", "b", "b", None])
    # share of all 2/3; a: (1 + 2/3) / 4, b: (2 + 2/3) / 3, unknown: (1 + 2/3) / 2, a new site: 2/3
    found = site_probability(training, ["a", "b", None, "c"])
    np.testing.assert_allclose(found, [5 / 12, 8 / 9, 5 / 6, 2 / 3])


def test_three_baselines() -> None:
    rng = np.random.default_rng(0)
    grade = np.array([0, 1, 1] * 40)
    rows = np.stack([grade + rng.normal(0, 0.4, 120), 1000 * rng.normal(0, 1, 120)], axis=1)
    train, test = (
        side(grade[:60].tolist(), ["x", "y", "y"] * 20, rows[:60]),
        side(grade[60:].tolist(), ["x", "y", "y"] * 20, rows[60:]),
    )
    majority, site, regression = baselines(train, test, Measures("two numbers", ("a", "b"), rows))
    assert set(majority.probability) == {2 / 3}
    assert auc(test.grade, majority.probability) == 0.5
    assert auc(test.grade, site.probability) == 1
    assert regression.looks_at == "two numbers"
    assert auc(test.grade, regression.probability) == pytest.approx(auc(test.grade, rows[60:, 0]), abs=0.03)


def test_no_validation_patient_is_looked_at() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1, (40, 3))
    train = side([0, 1] * 10, ["s"] * 20, rows[:20])
    measures = Measures("m", ("a", "b", "c"), rows)
    one, other = (baselines(train, side([grade] * 20, ["s"] * 20, rows[20:]), measures) for grade in (0, 1))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.probability, second.probability)


def test_without_sites_there_is_no_site_baseline() -> None:
    unknown = side([0, 1, 0, 1], [None] * 4)
    assert [one.name for one in baselines(unknown, unknown, Measures("m", ("a", "b"), unknown.rows))] == [
        "majority class",
        "logistic regression",
    ]
