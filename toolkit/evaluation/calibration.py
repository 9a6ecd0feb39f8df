"""From logits to a probability and a threshold. NumPy only: prediction imports this."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import AfterValidator, Field

from toolkit.arrays import Float64
from toolkit.config import parse_rule
from toolkit.errors import GradeError
from toolkit.frozen import FrozenFinite

Method = Literal["platt", "temperature", "none"]


def _checked_rule(rule: str) -> str:
    parse_rule(rule)
    return rule


class Calibration(FrozenFinite):
    """The map from logit to P(HGG), and the decision: HGG where the probability is at least the threshold.

    `method` is what was applied: `none` (a = 1, b = 0) where a fit was asked for but not possible; `notes` says why.
    `rule` is what was asked for, `threshold_limits` the threshold's 95 % interval, None where it was not chosen by the
    rule. `cases` counts the patients it was fitted on.
    """

    method: Method
    a: float = Field(gt=0, allow_inf_nan=False)
    b: float = Field(allow_inf_nan=False)
    threshold: float = Field(gt=0, lt=1)
    threshold_limits: tuple[float, float] | None = None
    rule: Annotated[str, AfterValidator(_checked_rule)]
    cases: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def decided(self) -> str:
        """What chose the threshold, in words: the rule asked for, or the default where it could not be applied."""
        return f"by {'' if self.threshold_limits else 'default, not by '}the rule {self.rule}"

    def probability(self, logit: ArrayLike) -> Float64:
        """Calibrated P(HGG), float64 of the same shape.

        Args:
            logit: any shape; the logit of HGG minus that of LGG.

        Raises:
            GradeError: a logit is not finite.
        """
        logit = np.asarray(logit, dtype=np.float64)
        refuse_not_finite(logit, "run the network in fp32, or look at the scan")
        return sigmoid(self.a * logit + self.b)


def sigmoid(z: Float64) -> Float64:
    """1 / (1 + exp(-z)), without overflow."""
    return np.exp(-np.logaddexp(0, -z))


def refuse_not_finite(logit: Float64, remedy: str) -> None:
    """Raise a GradeError that counts the logits which are not finite, and says what to do."""
    bad = int((~np.isfinite(logit)).sum())
    if bad:
        raise GradeError(f"{bad} of {logit.size} logits are not finite, so they mean no probability; {remedy}.")
