"""Figures judged by their intervals."""

import pytest

from toolkit.evaluation.local.acceptance import judge, verdict_of


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ((0.9, 0.85, 0.95), "pass"),
        ((0.9, 0.70, 0.95), "restrict"),
        ((0.7, 0.60, 0.80), "restrict"),
        ((0.6, 0.50, 0.70), "fail"),
        ((0.9, None, None), "restrict"),
        ((0.6, None, None), "restrict"),
        ((None, None, None), "restrict"),
        ((0.75, 0.75, 0.75), "pass"),
    ],
)
def test_an_interval_decides(found, outcome):
    check = judge("AUC", found, 0.75, 1)
    assert check.outcome == outcome
    assert check.reason


def test_one_failure_decides_and_nothing_shown_is_no_pass():
    good, open_, bad = (judge("x", (0.9, low, high), 0.75, 1) for low, high in ((0.8, 1), (0.5, 1), (0.5, 0.6)))
    assert verdict_of([good, good]) == "pass"
    assert verdict_of([good, open_]) == "restrict"
    assert verdict_of([good, open_, bad]) == "do not use"
