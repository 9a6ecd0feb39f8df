"""What a training looks like in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.console import answer, bar, err, figure, note, say, show_json, table, volume
from cli.ending import sentences
from toolkit.config import Settings, dump_settings
from toolkit.data.patients import Cohort, Patient
from toolkit.training.outlook import Outlook, counted, look_ahead
from toolkit.training.processes.launch import check_devices, launch
from toolkit.training.processes.ranks import Ranks, joined, started_alone
from toolkit.training.processes.spread import LOADED, Spread
from toolkit.training.runs.run import EpochRow
from toolkit.training.start import Processes
from toolkit.training.watch import Quiet, Watcher


class TrainingScreen:
    """One bar for the epoch, one line for each epoch that ended."""

    def __init__(self, epochs: int = 0) -> None:
        self._epochs, self._epoch, self._best = epochs, "", ""
        self._seconds: list[float] = []
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=err, transient=True, disable=volume.quiet)
        self._task: TaskID | None = None
        self._start = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @contextmanager
    def reading(self, patients: int) -> Iterator[Callable[[Patient], None]]:
        """A bar for reading and preprocessing."""
        with bar("reading patients", patients) as done:
            yield done
        say(f"{patients} patients read and preprocessed")

    def note(self, text: str) -> None:
        """Something worth knowing."""
        note(text)

    def epoch_started(self, epoch: int, steps: int) -> None:
        """Begin the bar of an epoch."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("")
        of = f"/{self._epochs}" if self._epochs else ""
        self._epoch, self._steps, self._step = f"epoch {epoch}{of}", steps, 0
        self._progress.reset(self._task, total=steps, description=self._epoch)

    def step(self, loss: float) -> None:
        """Advance it."""
        if self._task is not None:
            self._step += 1
            text = f"{self._epoch}, step {self._step}/{self._steps}, loss {loss:.3f}{self._best}{self._left()}"
            self._progress.update(self._task, advance=1, description=text)

    def epoch_done(self, row: EpochRow, best: bool) -> None:
        """Leave a line behind."""
        self._seconds.append(row.seconds)
        if best:
            self._best = f", best AUC {figure(row.val_auc)} in epoch {row.epoch}"
        of = f"/{self._epochs}" if self._epochs else ""
        say(
            f"epoch {row.epoch:3}{of}  loss {row.train_loss:.3f} / {row.val_loss:.3f}  "
            f"AUC {figure(row.train_auc)} / {figure(row.val_auc)} (training / validation)  "
            f"{row.seconds:.1f} s{'  best' if best else ''}{self._left()}"
        )

    def _left(self) -> str:
        """At most so long, at the median speed of the epochs so far: a training may stop early."""
        epochs = self._epochs - len(self._seconds)
        if not self._seconds or epochs <= 0:
            return ""
        return f", at most {timedelta(seconds=round(median(self._seconds) * epochs))} left"


def in_processes(train: Callable[[Ranks], None], devices: int) -> None:
    """Train in this process, or in as many as share each step; those are forked here unless torchrun has started them.

    Args:
        train: what each process does.
        devices: GPUs that share each step.

    Raises:
        typer.Exit: other processes have done the work.
        RunError: one of them was killed.
        RuntimeUnavailable: there are fewer GPUs.
    """

    def one() -> None:
        with joined() as ranks:
            train(ranks)

    def one_of_several() -> None:
        with sentences():
            one()

    if devices > 1 and started_alone():
        import_module(LOADED)
        raise typer.Exit(launch(one_of_several, devices))
    one()


def processes_of(ranks: Ranks, devices: int) -> Processes:
    """Which processes train.

    Args:
        ranks: this process among those that share each step.
        devices: GPUs asked for; where no step is shared, each gets whole folds.

    Raises:
        RuntimeUnavailable: there are fewer GPUs.
    """
    if devices == 1 or ranks.size > 1:
        return Processes(ranks)
    check_devices(devices)
    return Processes(over=Spread(devices, devices))


@contextmanager
def watching(ranks: Ranks, epochs: int) -> Iterator[Watcher]:
    """The screen on rank 0, and nothing on the others."""
    if not ranks.first:
        yield Quiet()
        return
    with TrainingScreen(epochs) as screen:
        yield screen


def show_dry_run(settings: Settings, folder: Path, as_json: bool) -> None:
    """What a training would be; nothing is written.

    Raises:
        GradeError: as `look_ahead`.
    """
    ahead = look_ahead(settings, folder)
    rows = [
        ("run", str(folder)),
        ("strategy", settings.strategy),
        ("patients", counted(ahead.cohort)),
        *((f"that {verb}", counted(side)) for verb, side in _sides(ahead)),
        ("trainings", str(ahead.trainings)),
        ("epochs, steps in each", f"at most {settings.training.epochs}, {ahead.steps}"),
        ("device", ahead.device),
        ("parameters", f"{ahead.parameters / 1e6:.1f} million"),
        ("disk, at most", f"{ahead.disk / 1e9:.1f} GB; {ahead.free / 1e9:.1f} GB are free"),
        ("memory for scans", f"{ahead.memory / 1e9:.1f} GB"),
    ]
    for sentence in (*ahead.notes, *ahead.conflicts):
        note(sentence)
    if ahead.conflicts and settings.strategy != "legacy":
        note("the training would not start with these conflicts; --allow-conflicts accepts them.")
    if ahead.disk > ahead.free:
        note(f"the disk has {ahead.free / 1e9:.1f} GB, less than the {ahead.disk / 1e9:.1f} GB that may be needed.")
    if as_json:
        show_json(
            {
                "settings": settings.model_dump(mode="json"),
                "run": str(folder),
                "conflicts": ahead.conflicts,
                "patients": len(ahead.cohort),
                "training": len(ahead.split.training) if ahead.split else None,
                "validation": len(ahead.split.validation) if ahead.split else None,
                "trainings": ahead.trainings,
                "steps_per_epoch": ahead.steps,
                "device": ahead.device,
                "parameters": ahead.parameters,
                "disk_bytes": ahead.disk,
                "free_bytes": ahead.free,
                "memory_bytes": ahead.memory,
            }
        )
        return
    table("This training", ("", ""), rows)
    answer(dump_settings(settings).strip())


def _sides(ahead: Outlook) -> list[tuple[str, Cohort]]:
    return [("train", ahead.split.training), ("validate", ahead.split.validation)] if ahead.split else []
