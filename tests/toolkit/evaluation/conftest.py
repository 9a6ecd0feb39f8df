from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray


@dataclass(frozen=True)
class Epoch:
    epoch: int
    train_loss: float
    val_loss: float = 0.5
    train_auc: float | None = 0.9
    val_auc: float | None = 0.85
    lr: float = 1e-4
    seconds: float = 12.0


@dataclass(frozen=True)
class Graded:
    grade: NDArray[np.int64]
    logit: NDArray[np.float64]

    @property
    def probability(self) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-self.logit))


@pytest.fixture(scope="session")
def make_epoch() -> type[Epoch]:
    return Epoch


@pytest.fixture(scope="session")
def cohort() -> Graded:
    """57 patients, the share of grades in BraTS, an AUC near 0.9."""
    rng = np.random.default_rng(5)
    grade = np.array([0] * 15 + [1] * 42)
    return Graded(grade, rng.normal(2 * grade - 0.3, 1.2))
