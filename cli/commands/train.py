"""`grade train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import (
    DEFAULT_CONFIG,
    MACHINE,
    OUTPUT,
    SETTINGS,
    AsJson,
    Config,
    Overrides,
    Strategy,
    check_device,
    device_words,
    refuse_given,
)

EXAMPLES = (
    "grade train",
    "grade train --strategy stable --set training.epochs=20 --name first",
    "grade train --folds 5 --devices 2",
    "grade train --dry-run",
    "grade train --resume",
)

# What a resumed run has already decided.
DECIDED = (
    *("config", "strategy", "overrides", "pretrained", "group", "folds", "repeats", "allow_conflicts", "device"),
    "dry_run",
)


def command(
    context: typer.Context,
    config: Config = DEFAULT_CONFIG,
    strategy: Annotated[Strategy | None, typer.Option(help="A preset of settings.", rich_help_panel=SETTINGS)] = None,
    overrides: Overrides = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="A MedicalNet weights file.", rich_help_panel=SETTINGS)
    ] = None,
    group: Annotated[
        Literal["patient", "site"] | None,
        typer.Option(help="What is never on both sides of the split.", rich_help_panel=SETTINGS),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cross-validate. The folds' networks become one model.", rich_help_panel=SETTINGS),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help="How often to repeat the cross-validation, each time with new folds.", rich_help_panel=SETTINGS
        ),
    ] = None,
    allow_conflicts: Annotated[
        bool,
        typer.Option(
            "--allow-conflicts", help="Train although settings work against each other.", rich_help_panel=SETTINGS
        ),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.", rich_help_panel=OUTPUT)] = Path("runs"),
    name: Annotated[
        str | None, typer.Option(help="Name of the run. Default: date, time and strategy.", rich_help_panel=OUTPUT)
    ] = None,
    as_json: AsJson = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda or cuda:N. Default: as the settings say.",
            callback=check_device,
            autocompletion=device_words,
            rich_help_panel=MACHINE,
        ),
    ] = None,
    devices: Annotated[
        int,
        typer.Option(min=1, help="GPUs: they share each step, or each takes whole folds.", rich_help_panel=MACHINE),
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run (--name, or the latest).")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, split, conflicts and cost. Train nothing.")
    ] = False,
) -> None:
    """Train and calibrate on the cohort that grade.toml names. Writes runs/NAME and points runs/latest at it."""
    if resume:
        refuse_given(context, DECIDED, "with --resume: a run continues with the settings that it began with")
    from cli.console import show_json
    from cli.options import settings_from
    from cli.privacy import hide_cohort
    from toolkit.environment import loading
    from toolkit.training.runs.folder import new_folder, open_run

    changes = {
        "network.pretrained": pretrained and pretrained.absolute(),
        "data.group": group,
        "data.folds": folds,
        "data.repeats": repeats,
        "training.device": device,
    }
    # What is wrong with the settings is said before torch is loaded, which takes seconds.
    if resume:
        folder = runs / (name or "latest")
        settings = open_run(folder).settings
    else:
        settings = settings_from(config, overrides, strategy, changes)
        folder = new_folder(runs, name, settings)
    hide_cohort(settings.data)

    with loading():
        from cli.screens.report import facts, show_run
        from cli.screens.train import in_processes, processes_of, show_dry_run, watching
        from toolkit.training.loop.compute import check_ranks
        from toolkit.training.processes.ranks import Ranks
        from toolkit.training.start import resume_training, start_training

    if dry_run:
        check_ranks(settings.training, 1 if settings.data.folds else devices)
        show_dry_run(settings, folder, as_json)
        return

    def train(ranks: Ranks) -> None:
        processes = processes_of(ranks, devices)
        with watching(ranks, settings.training.epochs) as watcher:
            if resume:
                run = resume_training(folder, watcher, processes)
            else:
                run = start_training(settings, folder, watcher, allow_conflicts, processes)
        if ranks.first:
            show_run(run, as_json)
            if as_json:
                show_json(facts(run))

    in_processes(train, 1 if settings.data.folds else devices)
