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
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run (--name, or the latest).")] = False,
    allow_conflicts: Annotated[
        bool, typer.Option("--allow-conflicts", help="Train although settings work against each other.")
    ] = False,
) -> None:
    """Train and calibrate on the cohort that grade.toml names; writes runs/NAME and points runs/latest at it."""
    from cli.options import settings_from
    from cli.privacy import hide_cohort
    from cli.training import TrainingScreen, show_run
    from toolkit.training.runs import open_run
    from toolkit.training.start import resume_training, start_training

    with TrainingScreen() as screen:
        if resume:
            hide_cohort(open_run(runs / (name or "latest")).settings.data)
            run = resume_training(runs / (name or "latest"), screen)
        else:
            more = [f"network.pretrained={pretrained.absolute()}"] if pretrained else []
            more += [f"data.group={group}"] if group else []
            more += [f"data.folds={folds}"] if folds else []
            more += [f"data.repeats={repeats}"] if repeats else []
            settings = settings_from(config, [*(overrides or []), *more], strategy)
            hide_cohort(settings.data)
            run = start_training(settings, runs, name, allow_conflicts, screen)
    show_run(run)
