"""Where a model comes from: who it was trained on, what their scans were like, and how it was adapted to a site."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from toolkit.frozen import FrozenFinite

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Figure: TypeAlias = tuple[float | None, float | None, float | None]  # value and 95 % limits


class People(FrozenFinite):
    """Patients that are known again by their images, and by nothing else.

    Attributes:
        salt: of this model.
        digests: salted, sorted; see `toolkit.data.content`.
    """

    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    digests: tuple[Sha256, ...]


class Fit(FrozenFinite):
    """How well probabilities fit known grades.

    Attributes:
        auc: 0 to 1.
        intercept: calibration in the large, 0 is perfect.
        slope: of the calibration, 1 is perfect.
        observed_expected: HGG found over HGG expected, 1 is perfect.
        sensitivity: for HGG, at the threshold.
        specificity: at the threshold.
        coverage: grade -> share of its patients whose set holds it.
        unfamiliar: share that is called unfamiliar; None where it is not known out of sample.
    """

    auc: Figure
    intercept: Figure
    slope: Figure
    observed_expected: Figure
    sensitivity: Figure
    specificity: Figure
    coverage: dict[str, Figure]
    unfamiliar: Figure


class Adaptation(FrozenFinite):
    """How a model was fitted to a site; no weight was touched.

    Attributes:
        parent: fingerprint of the model that it was made from.
        parent_created: UTC, ISO 8601.
        patients: of each grade, with known grades.
        unlabelled: further patients, for what is familiar.
        refused: patients that could not be read.
        shift: of the log odds of HGG, see `toolkit.evaluation.local.update`.
        slope: of the calibration, in units of the parent's.
        distance: whose limit of the feature distance counts.
        bounds: whose ranges of the image statistics count.
        before: the parent on these patients.
        after: this model, each patient by a fit without the patient.
        people: the labelled patients, salted as the training's.
        notes: sentences for a reader.
    """

    parent: Sha256
    parent_created: str
    patients: dict[str, int]
    unlabelled: int
    refused: int
    shift: float
    slope: float
    distance: Literal["local", "parent"]
    bounds: Literal["local", "parent"]
    before: Fit
    after: Fit
    people: People
    notes: tuple[str, ...] = ()
