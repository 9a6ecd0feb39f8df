"""A training from Python: one call, the same as `grade train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from toolkit.config import load_settings
from toolkit.training.runs.folder import new_folder
from toolkit.training.runs.run import Run
from toolkit.training.start import start_training
from toolkit.training.watch import Quiet, Watcher


def train(
    cohort: str | Path,
    runs: str | Path = "runs",
    settings: Mapping[str, object] = MappingProxyType({}),
    watcher: Watcher | None = None,
) -> Run:
    """Train and calibrate a network on a cohort.

    Args:
        cohort: folder of patients with known grades.
        runs: where the run's folder is made.
        settings: `branch.key` -> value, for example `{"training.epochs": 20}`; see docs/settings.md.
        watcher: is told what happens; None shows nothing.

    Returns:
        The run; `run.folder` holds its page and all that `grade export` needs.

    Raises:
        SettingsError: an unknown key, a value out of range, or settings that work against each other.
        CohortError: the cohort, its labels, its split or its patients cannot be used.
        RunError: see `toolkit.training.start.start_training`.
    """
    changes = {"data.cohort": str(Path(cohort).resolve()), **settings}
    resolved = load_settings(None, None, (), changes)
    return start_training(resolved, new_folder(Path(runs), None, resolved), watcher or Quiet())
