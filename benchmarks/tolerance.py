"""Does the limit of the feature distance keep its promise on a model's own distances?

    python -m benchmarks.tolerance MODEL PATIENTS

Distances of patients that the model has not seen, split at random into a validation of N and the rest, many times. In
how many of these validations do more than a tenth of the rest lie beyond the limit? At most 5 % are promised
(`toolkit.evaluation.familiarity_fit.tolerance_limit`). Next to it: the largest distance, and a normal limit of
the logarithms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import nct, norm, shapiro, skew

from benchmarks.common import arguments, report
from benchmarks.distances import features
from deploy.model.folder import open_model
from deploy.predict.verdict import read_space
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from toolkit.data.patients import find_patients
from toolkit.evaluation.familiarity import DISTANCE_CONFIDENCE, DISTANCE_RATE
from toolkit.evaluation.familiarity_fit import tolerance_limit

SIZES = (10, 15, 19, 25, 28, 29, 46, 57)
TURNS = 2000
COLUMNS = ("validation patients", "limit in use", "largest", "normal", "mean rate of the limit in use")


def normal_limit(distances: np.ndarray) -> float:
    """One-sided tolerance limit of normal logarithms (Hahn & Meeker 1991)."""
    count, logs = len(distances), np.log(distances)
    factor = nct.ppf(DISTANCE_CONFIDENCE, count - 1, norm.ppf(1 - DISTANCE_RATE) * count**0.5) / count**0.5
    return float(np.exp(logs.mean() + factor * logs.std(ddof=1)))


def split_often(distances: np.ndarray, count: int) -> tuple[float, ...]:
    """Share of validations of `count` that fail by each limit, and the mean rate beyond the first."""
    rng, rates = np.random.default_rng(count), []
    for _ in range(TURNS):
        mixed = rng.permutation(distances)
        chosen, rest = mixed[:count], mixed[count:]
        limits = (
            tolerance_limit(chosen, DISTANCE_RATE, DISTANCE_CONFIDENCE)[0],
            chosen.max(),
            normal_limit(chosen),
        )
        rates.append([(rest > limit).mean() for limit in limits])
    found = np.array(rates)
    return (*(float(share) for share in (found > DISTANCE_RATE).mean(axis=0)), float(found[:, 0].mean()))


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Does the limit of the feature distance keep its promise?",
        ("model", {"type": Path, "help": "exported model"}),
        ("patients", {"type": Path, "help": "patients that the model has not seen"}),
    )
    model = open_model(given.model)
    runtime, space = open_runtime(model, Choice("onnx", "cpu")), read_space(model)
    distances = space.distance(features(runtime, model.manifest.grid, find_patients([given.patients])))
    logs = np.log(distances)
    title = (
        f"Validations in which over {DISTANCE_RATE:.0%} of the others are beyond the limit; {len(logs)} patients,"
        f" skewness of the logarithms {skew(logs):.2f}, Shapiro-Wilk p {shapiro(logs).pvalue:.1e}"
    )
    report(title, COLUMNS, [(count, *split_often(distances, count)) for count in SIZES], given.out)


if __name__ == "__main__":
    main()
