"""Graders without a network: what a study's networks have to beat. Each is fitted on training patients alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.arrays import Float64, Int64
from toolkit.data.measures import Measures


class Baseline(NamedTuple):
    """A grader's answers on validation patients: probability of HGG, (N,), 0 to 1."""

    name: str
    looks_at: str
    probability: Float64


class Side(NamedTuple):
    """Training or validation patients of a split.

    Attributes:
        grade: (N,), 0 LGG, 1 HGG.
        sites: N names, None where unknown.
        rows: (N, K), their measures.
    """

    grade: Int64
    sites: Sequence[str | None]
    rows: Float64


def baselines(training: Side, validation: Side, measures: Measures) -> list[Baseline]:
    """Majority class, site alone (where a training patient's is known), logistic regression on the measures.

    Args:
        training: both grades present.
        validation: at least one patient.
        measures: what `rows` hold.
    """
    share = float(training.grade.mean())
    found = [Baseline("majority class", "nothing", np.full(len(validation.grade), share))]
    if any(training.sites):
        found.append(Baseline("site only", "the site", site_probability(training, validation.sites)))
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    regression.fit(training.rows, training.grade)
    probability = regression.predict_proba(validation.rows)[:, 1]
    found.append(Baseline("logistic regression", measures.looks_at, probability))
    return found


def site_probability(training: Side, sites: Sequence[str | None]) -> Float64:
    """Each site's share of HGG among training patients, drawn towards the share of all by one patient's weight.

    Args:
        training: fitted on.
        sites: N names, None counts as a separate site.

    Returns:
        (N,), 0 to 1; a site that training lacks gets the share of all.
    """
    share = float(training.grade.mean())
    known = np.array([site or "" for site in training.sites])
    found = []
    for site in sites:
        here = training.grade[known == (site or "")]
        found.append((here.sum() + share) / (len(here) + 1))
    return np.array(found, np.float64)
