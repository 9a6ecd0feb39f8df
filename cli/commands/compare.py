"""`grade compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, Config, Overrides


def command(
    cohort: Annotated[Path, typer.Argument(help="Folder of patients with known grades.")],
    strategies: Annotated[str, typer.Option(help="Presets, separated by commas.")] = "stable,ldam,legacy",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each, with seeds counting up.")] = 5,
    folds: Annotated[int, typer.Option(min=0, help="Cross-validation inside each seed; 0 for one split.")] = 0,
    ablate: Annotated[str, typer.Option(help="Levers to try on the first strategy, separated by commas.")] = "",
    config: Config = DEFAULT_CONFIG,
    overrides: Overrides = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings at once, each in a process of its own; as many as devices.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs that the trainings are dealt to.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the study; what has ended there is kept.")] = Path("study"),
) -> None:
    """Train strategies over several seeds and compare them: a table, a page, a verdict on each claim. Resumable."""
    from cli.screens.compare import StudyScreen, names, settings_loader, show_study
    from toolkit.training.compare import carry_out, plan_arms, plan_runs
    from toolkit.training.findings import write_study
    from toolkit.training.launch import check_devices
    from toolkit.training.spread import Spread

    check_devices(devices)
    over = Spread(jobs or devices, devices)
    arms = plan_arms(names(strategies), names(ablate))
    planned = plan_runs(arms, seeds, folds, settings_loader(config, overrides, cohort))
    with StudyScreen() as screen:
        failed = carry_out(planned, out / "runs", over, screen)
        study = write_study(out, arms, planned, failed, screen.measuring)
    show_study(study, out)
