"""What the site alone gives away, and what is left when it cannot.

In BraTS 2018 nearly every source contributed one grade only, so a network that recognises scanners looks like one that
grades tumours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from toolkit.evaluation.metrics import auc

SUSPECT = 0.8  # AUC of the site alone from which a model's own AUC says little
MIN_PER_GRADE = 5  # patients of each grade for the AUC inside a site


class SiteOnly(NamedTuple):
    """A grader that knows nothing but the site; in-sample, so an upper bound.

    Attributes:
        auc: with the site's share of HGG as score; None with one class.
        accuracy: deciding by each site's majority.
        sites: site -> (LGG, HGG) patients.
    """

    auc: float | None
    accuracy: float
    sites: dict[str, tuple[int, int]]

    @property
    def sentence(self) -> str:
        """What to tell the user."""
        value = "undefined" if self.auc is None else f"{self.auc:.3f}"
        return (
            f"Knowing only the site ({len(self.sites)} sites) reaches AUC {value} and accuracy {self.accuracy:.3f} on "
            "these patients."
        )

    @property
    def warning(self) -> str | None:
        """A sentence when the site is nearly the grade."""
        if self.auc is None or self.auc <= SUSPECT:
            return None
        return (
            f"The site alone reaches AUC {self.auc:.3f}: an AUC inside this cohort may be scanner recognition; test on "
            "other sites, or train with --group site."
        )


class Sites(NamedTuple):
    """What the site has to do with it.

    Attributes:
        alone: a grader that knows nothing but the site; None where no site is known.
        within: AUC inside each site with enough of both grades.
        without: AUC of all others, leaving out one site at a time.
    """

    alone: SiteOnly | None
    within: dict[str, float]
    without: dict[str, float | None]

    @property
    def details(self) -> dict[str, str]:
        """For a page: name -> value."""
        alone = f"{self.alone.sentence} {self.alone.warning or ''}".strip() if self.alone else "unknown"
        return {"Site": alone, "AUC within a site": _listed(self.within), "AUC without a site": _listed(self.without)}


def _listed(aucs: Mapping[str, float | None]) -> str:
    known = [f"{name} {value:.3f}" for name, value in aucs.items() if value is not None]
    return ", ".join(known) or "undefined"


def compare_sites(grade: ArrayLike, score: ArrayLike, site: Sequence[str | None]) -> Sites:
    """What the site has to do with a model's answers.

    Args:
        grade: (N,) integers, 0 LGG, 1 HGG.
        score: (N,), larger means HGG.
        site: N names, None where unknown.
    """
    return Sites(site_only(grade, site), auc_by_site(grade, score, site), auc_without_site(grade, score, site))


def site_only(grade: ArrayLike, site: Sequence[str | None]) -> SiteOnly | None:
    """How well the site alone grades.

    Args:
        grade: (N,) integers, 0 LGG, 1 HGG.
        site: N names; patients whose site is None are taken as one site, `unknown`.

    Returns:
        None where no site is known.
    """
    if not any(site):
        return None
    grade = np.asarray(grade)
    names, group = np.unique([name or "unknown" for name in site], return_inverse=True)
    hgg = np.bincount(group, weights=grade, minlength=len(names)).astype(int)
    total = np.bincount(group, minlength=len(names))
    share = hgg / total
    right = np.maximum(hgg, total - hgg).sum()
    counts = {str(n): (int(t - h), int(h)) for n, h, t in zip(names, hgg, total, strict=True)}
    return SiteOnly(auc(grade, share[group]), float(right / len(grade)), counts)


def auc_by_site(grade: ArrayLike, score: ArrayLike, site: Sequence[str | None]) -> dict[str, float]:
    """AUC inside each site that has enough of both grades: there, the site gives nothing away.

    Args:
        grade: (N,) integers, 0 LGG, 1 HGG.
        score: (N,), larger means HGG.
        site: N names.
    """
    grade, score, names = np.asarray(grade), np.asarray(score, np.float64), np.array([name or "" for name in site])
    found = {}
    for name in sorted(set(names.tolist()) - {""}):
        here = names == name
        if min(np.bincount(grade[here], minlength=2)) >= MIN_PER_GRADE:
            value = auc(grade[here], score[here])
            if value is not None:
                found[name] = value
    return found


def auc_without_site(grade: ArrayLike, score: ArrayLike, site: Sequence[str | None]) -> dict[str, float | None]:
    """AUC of all others, leaving out one site at a time: whether one site carries the result.

    Args:
        grade: (N,) integers, 0 LGG, 1 HGG.
        score: (N,), larger means HGG.
        site: N names.
    """
    grade, score, names = np.asarray(grade), np.asarray(score, np.float64), np.array([name or "" for name in site])
    return {n: auc(grade[names != n], score[names != n]) for n in sorted(set(names.tolist()) - {""})}
