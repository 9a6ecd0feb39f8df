"""The logistic fit of calibration and of the clinical measures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from toolkit.arrays import Float64


class LogisticFit(NamedTuple):
    """What was fitted.

    Attributes:
        weights: (K,).
        covariance: (K, K), of the weights, by the curvature of the loss at its minimum.
    """

    weights: Float64
    covariance: Float64


def fit_logistic(
    columns: Float64, target: Float64, offset: Float64 | None = None, pull: Float64 | None = None
) -> LogisticFit:
    """Weights that minimise the logistic loss.

    Args:
        columns: (N, K), of comparable sizes.
        target: (N,) 0 to 1; between them where targets are smoothed.
        offset: (N,) added to the logit; None adds nothing.
        pull: (K,) how strongly each weight is pulled to 0, one over the variance of a normal prior; None pulls none.

    Source: Cox 1958; the minimum by the exact trust-region method, Conn, Gould & Toint 2000.
    """
    added = np.zeros(len(target)) if offset is None else offset
    towards = np.zeros(columns.shape[1]) if pull is None else pull

    def loss(weights: Float64) -> float:
        z = columns @ weights + added
        return float((np.logaddexp(0, z) - target * z).sum() + (towards * weights**2).sum() / 2)

    def gradient(weights: Float64) -> Float64:
        slope: Float64 = columns.T @ (expit(columns @ weights + added) - target) + towards * weights
        return slope

    def curvature(weights: Float64) -> Float64:
        p = expit(columns @ weights + added)
        matrix: Float64 = (columns.T * (p * (1 - p))) @ columns + np.diag(towards + 1e-12)
        return matrix

    start = np.zeros(columns.shape[1])
    found = minimize(loss, start, method="trust-exact", jac=gradient, hess=curvature, options={"gtol": 1e-9})
    weights: Float64 = found.x
    return LogisticFit(weights, np.asarray(np.linalg.inv(curvature(weights)), np.float64))
