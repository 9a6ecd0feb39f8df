"""Would another distance of the network's features notice another disease?

    python -m benchmarks.distances MODEL RUN PATIENTS --count 100

New patients that the model has not seen, as they are and with seven small metastases (`benchmarks.unfamiliar`). Each
score is learned from the run's training patients; its limit is the tolerance limit of its validation patients, as for
the distance in use. The area under the curve tells metastases from the same patients without: no limit can find many
and spare the others where it is low.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.common import arguments, report
from benchmarks.unfamiliar import metastases, some, spoil
from deploy.model.folder import open_model
from deploy.runtime import Choice, Runtime
from deploy.runtimes.open import open_runtime
from toolkit.config import Grid
from toolkit.data.patients import Patient, find_patients
from toolkit.data.scan import read_scan
from toolkit.evaluation.familiarity import DISTANCE_CONFIDENCE, DISTANCE_RATE
from toolkit.evaluation.familiarity_fit import fit_space, tolerance_limit
from toolkit.training.runs.folder import open_run

COLUMNS = ("score", "metastases found", "new called unfamiliar", "AUC", "limit")
Score = Callable[[np.ndarray], np.ndarray]  # features (N, F) -> (N,), larger is stranger


def scores(near: np.ndarray, grades: np.ndarray) -> dict[str, Score]:
    """The scores, learned from features (N, F) of the training patients and their grades (N,)."""
    space = fit_space(near)
    middles = [near[grades == grade].mean(axis=0) for grade in (0, 1)]
    within = fit_space(near - np.array(middles)[grades])  # about its own grade's mean
    found: dict[str, Score] = {
        "Mahalanobis (in use)": space.distance,
        "Mahalanobis, nearer of two grades' means": lambda x: np.min([within.distance(x - m) for m in middles], axis=0),
        "relative Mahalanobis, a ratio": lambda x: (
            np.min([within.distance(x - m) for m in middles], axis=0) / space.distance(x)
        ),
    }
    for rank in (1, 5, 10):
        found[f"neighbour {rank}, unit length"] = lambda x, rank=rank: neighbour(unit(near), unit(x), rank)
    for rank in (1, 5):
        found[f"neighbour {rank}, as they are"] = lambda x, rank=rank: neighbour(near, x, rank)
    _, _, rows = np.linalg.svd(near - near.mean(axis=0), full_matrices=False)
    for kept in (5, 20):
        found[f"residual apart from {kept} components"] = lambda x, kept=kept: residual(
            x - near.mean(axis=0), rows[:kept]
        )
    return found


def unit(features: np.ndarray) -> np.ndarray:
    """Of length 1 (Sun 2022)."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def neighbour(near: np.ndarray, new: np.ndarray, rank: int) -> np.ndarray:
    """Distance to the rank-th nearest training patient."""
    return np.sort(np.linalg.norm(new[:, None] - near[None], axis=2), axis=1)[:, rank - 1]  # (N, training)


def residual(away: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Length of what the components do not hold."""
    return np.linalg.norm(away - away @ rows.T @ rows, axis=1)


def features(runtime: Runtime, grid: Grid, patients: Sequence[Patient]) -> np.ndarray:
    """(N, F) in float64."""
    answers = [runtime.infer(read_scan(patient, grid).data[None]).features[0] for patient in patients]
    return np.stack(answers).astype(np.float64)


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Would another distance of the features notice another disease?",
        ("model", {"type": Path, "help": "exported model"}),
        ("run", {"type": Path, "help": "run that it was exported from"}),
        ("patients", {"type": Path, "help": "patients that the model has not seen"}),
        ("--count", {"type": int, "help": "how many of them; else all"}),
    )
    model, run = open_model(given.model), open_run(given.run)
    runtime, grid = open_runtime(model, Choice("onnx", "cpu")), model.manifest.grid
    training, validation = run.training_patients(), run.validation_patients()
    near, other = (features(runtime, grid, cohort.patients) for cohort in (training, validation))
    new = some(find_patients([given.patients]), given.count)
    plain = features(runtime, grid, new)
    with tempfile.TemporaryDirectory() as folder:
        spoilt = features(runtime, grid, [spoil(patient, metastases, Path(folder)) for patient in new])
    rows = []
    for name, score in scores(near, training.grade_array).items():
        limit, _ = tolerance_limit(score(other), DISTANCE_RATE, DISTANCE_CONFIDENCE)
        sick, well = score(spoilt), score(plain)
        auc = roc_auc_score(np.repeat([1, 0], len(new)), np.concatenate([sick, well]))
        rows.append((name, float((sick > limit).mean()), float((well > limit).mean()), float(auc), limit))
    report(f"Scores of {len(new)} patients with and without metastases", COLUMNS, rows, given.out)


if __name__ == "__main__":
    main()
