"""The networks that a run leaves behind."""

from __future__ import annotations

from toolkit.training.network.ensemble import Ensemble
from toolkit.training.network.network import GradeNet
from toolkit.training.runs.folder import fold_runs
from toolkit.training.runs.run import Run


def load_network(run: Run) -> GradeNet | Ensemble:
    """The best network of a run; of a run of folds, all of them as one; in eval mode, on the CPU.

    Raises:
        RunError: a file of the weights is missing or broken.
    """
    folds = fold_runs(run)
    return Ensemble([fold.load_best() for fold in folds]).eval() if folds else run.load_best()
