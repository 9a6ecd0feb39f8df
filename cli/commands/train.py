"""`grade train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import DEFAULT_CONFIG, Config, Overrides


def command(
    config: Config = DEFAULT_CONFIG,
    strategy: Annotated[str | None, typer.Option(help="stable, ldam or legacy.")] = None,
    overrides: Overrides = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the run; date and time otherwise.")] = None,
    pretrained: Annotated[Path | None, typer.Option(help="A MedicalNet weights file.")] = None,
    group: Annotated[
        Literal["patient", "site"] | None, typer.Option(help="What is never on both sides of the split.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Cross-validate; the folds' networks become one model.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Of the cross-validation, dealt anew.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs: they share each step, or are dealt whole folds.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run (--name, or the latest).")] = False,
    allow_conflicts: Annotated[
        bool, typer.Option("--allow-conflicts", help="Train although settings work against each other.")
    ] = False,
) -> None:
    """Train and calibrate on the cohort that grade.toml names; writes runs/NAME and points runs/latest at it."""
    from cli.options import settings_from
    from cli.privacy import hide_cohort
    from cli.screens.train import processes_of, show_run, watching
    from toolkit.training.ranks import joined
    from toolkit.training.runs import new_folder, open_run
    from toolkit.training.start import resume_training, start_training

    again = runs / (name or "latest")
    more = [f"network.pretrained={pretrained.absolute()}"] if pretrained else []
    more += [f"data.group={group}"] if group else []
    more += [f"data.folds={folds}"] if folds else []
    more += [f"data.repeats={repeats}"] if repeats else []
    with joined() as ranks:
        settings = open_run(again).settings if resume else settings_from(config, [*(overrides or []), *more], strategy)
        hide_cohort(settings.data)
        processes = processes_of(ranks, devices, bool(settings.data.folds))
        with watching(ranks) as watcher:
            if resume:
                run = resume_training(again, watcher, processes)
            else:
                folder = new_folder(runs, name, settings)
                run = start_training(settings, folder, watcher, allow_conflicts, processes)
        if ranks.first:
            show_run(run)
