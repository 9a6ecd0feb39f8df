"""Who watches a training or a study: what they are told, and someone who shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from toolkit.data.patients import Patient
from toolkit.training.runs.run import EpochRow


class Progress(Protocol):
    """What the loop tells."""

    def note(self, text: str) -> None:
        """One sentence worth knowing."""

    def epoch_started(self, epoch: int, steps: int) -> None:
        """An epoch, counted from 1, begins; it has so many optimiser steps."""

    def step(self, loss: float) -> None:
        """An optimiser step ended; its mean loss."""

    def epoch_done(self, row: EpochRow, best: bool) -> None:
        """An epoch was validated and saved; whether it is the best one so far."""


class Watcher(Progress, Protocol):
    """Who watches a training from its start."""

    def reading(self, patients: int) -> AbstractContextManager[Callable[[Patient], None]]:
        """So many patients are about to be read; the result is called after each."""


class StudyWatcher(Watcher, Protocol):
    """Who watches a study."""

    def run_started(self, name: str, number: int, total: int) -> None:
        """A training begins here; others may be running."""

    def run_ended(self, name: str, failure: str | None) -> None:
        """A training ended, or failed with a sentence."""


class Quiet:
    """A `Watcher` that shows nothing."""

    def note(self, text: str) -> None:
        """See `Progress`."""

    def epoch_started(self, epoch: int, steps: int) -> None:
        """See `Progress`."""

    def step(self, loss: float) -> None:
        """See `Progress`."""

    def epoch_done(self, row: EpochRow, best: bool) -> None:
        """See `Progress`."""

    @contextmanager
    def reading(self, patients: int) -> Iterator[Callable[[Patient], None]]:
        """See `Watcher`."""
        yield lambda patient: None
