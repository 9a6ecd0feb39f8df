"""The folder of the runs: begin one, find one, point at the latest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path

from toolkit.config import Settings, dump_settings, load_settings
from toolkit.data.cohort.split import Split
from toolkit.data.patients import CLASSES
from toolkit.errors import RunError
from toolkit.files import building
from toolkit.training.runs.run import SPLIT, Run
from toolkit.training.runs.tables import table_text

LATEST = "latest"


def new_folder(runs: Path, name: str | None, settings: Settings) -> Path:
    """The folder of a new run.

    Args:
        runs: folder of the runs.
        name: of the run; None takes date, time and strategy, and a number where that is taken.
        settings: of the run.

    Raises:
        RunError: the name is not a plain name of a folder.
    """
    if name is not None:
        if not name or name != Path(name).name or name.startswith(".") or name == LATEST:
            raise RunError(f"'{name}' cannot name a run; take a plain folder name other than '{LATEST}'.")
        return runs / name
    plain = f"{datetime.now():%Y-%m-%d_%H%M%S}_{settings.strategy}"
    names = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
    return next(runs / free for free in names if not (runs / free).exists())


def check_new(folder: Path) -> None:
    """Refuse to begin a run where there is something.

    Raises:
        RunError: there is.
    """
    if folder.exists() or folder.is_symlink():
        raise RunError(f"run {folder} exists; take another name, or continue it with --resume.")


def create_run(
    parent: Path, name: str, settings: Settings, split: Split, images: Mapping[Path, str] | None = None
) -> Run:
    """Begin a run folder and point `latest` next to it at it.

    Args:
        parent: folder of the runs; made where it is missing.
        name: of the new folder.
        settings: written to `settings.toml`.
        split: written to `split.csv`.
        images: by which the content of the images in a patient's folder is known again; written there as well.

    Raises:
        RunError: the name is taken, or the folder cannot be written.
    """
    folder = parent.absolute() / name
    check_new(folder)
    with building(folder, "run", RunError) as hidden:  # so that no run is there half
        begun = Run(hidden, settings)
        _write_split(begun, split, images or {})
        begun.write("labels.txt", split.training.labels + "\n")
        begun.write("settings.toml", dump_settings(settings))
        try:
            hidden.rename(folder)
        except OSError:
            check_new(folder)  # another process may have taken the name by now
            raise
    run = Run(folder, settings)
    point_latest(run)
    return run


def _write_split(run: Run, split: Split, images: Mapping[Path, str]) -> None:
    rows = [
        {
            "patient": patient.id,
            "grade": CLASSES[grade],
            "site": site or "",
            "split": part,
            "folder": str(patient.folder.absolute()),
            "images": images.get(patient.folder.absolute(), ""),
        }
        for part, cohort in (("training", split.training), ("validation", split.validation))
        for patient, grade, site in zip(
            cohort.patients, cohort.grades, cohort.sites or (None,) * len(cohort), strict=True
        )
    ]
    run.write("split.csv", table_text(SPLIT, rows))


def open_run(folder: Path) -> Run:
    """A run that `create_run` began.

    Args:
        folder: the run, or a link to it such as `runs/latest`.

    Raises:
        RunError: there is no such folder, or it is no run.
        SettingsError: its settings cannot be read.
    """
    if not folder.is_dir():
        raise RunError(f"there is no run {folder}; `grade train` makes one.")
    file = folder / "settings.toml"
    if not file.is_file():
        raise RunError(f"{folder} is no run: it has no settings.toml; name a folder that `grade train` wrote.")
    return Run(folder.resolve(), load_settings(file, of_run=True))


def fold_name(number: int) -> str:
    """Of a fold's run, inside the run of folds; counted from 1."""
    return f"fold-{number}"


def fold_runs(run: Run) -> list[Run]:
    """The runs inside a run of folds, in order; none in an ordinary run.

    Raises:
        RunError: one is missing.
    """
    count = run.settings.data.folds * run.settings.data.repeats
    return [open_run(run.folder / fold_name(number)) for number in range(1, count + 1)]


def point_latest(run: Run) -> None:
    """Point the link `latest` next to the run at it; the link is relative, so that the runs can be moved together."""
    link = run.folder.parent / LATEST
    temporary = link.with_name(f".{LATEST}.{os.getpid()}.tmp")  # several trainings may begin at once
    if link.exists() and not link.is_symlink():
        raise RunError(f"{link} cannot be pointed at {run.folder.name}: it is no link; move it away.")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(run.folder.name)
        temporary.replace(link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{link} cannot be pointed at {run.folder.name}: {error.strerror}; move it away.") from error
