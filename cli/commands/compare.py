"""`grade compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, MACHINE, OUTPUT, Config, Overrides, list_of


def _levers(text: str) -> str:
    if not text:
        return text
    from toolkit.training.study.plan import LEVERS, pulled_lever  # here, so that --help answers at once

    list_of(LEVERS)(",".join(pulled_lever(name.strip(), "")[1] for name in text.split(",")))
    return text


EXAMPLES = (
    "grade compare COHORT --strategies stable,legacy --seeds 3",
    "grade compare COHORT --strategies stable --ablate no-ema,clip --devices 2 --out study",
    "grade compare COHORT --strategies stable,legacy --ablate seresnet50,legacy-patience",
)


def command(
    cohort: Annotated[Path, typer.Argument(help="Folder of patients with known grades.")],
    strategies: Annotated[
        str, typer.Option(help="Presets, separated by commas.", callback=list_of(("stable", "ldam", "legacy")))
    ] = "stable,ldam,legacy",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each strategy, with seeds counting up.")] = 5,
    folds: Annotated[int, typer.Option(min=0, help="Cross-validation inside each seed. 0: one split.")] = 0,
    ablate: Annotated[
        str,
        typer.Option(
            help="Levers to try on the first strategy, or as legacy-clip on another. Separated by commas.",
            callback=_levers,
        ),
    ] = "",
    config: Config = DEFAULT_CONFIG,
    overrides: Overrides = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trainings at once, each in its own process. Default: one per device.", rich_help_panel=MACHINE
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs to use.", rich_help_panel=MACHINE)] = 1,
    out: Annotated[
        Path, typer.Option(help="Folder of the study. Finished runs in it are kept.", rich_help_panel=OUTPUT)
    ] = Path("study"),
) -> None:
    """Train strategies over several seeds and compare them: a table, a page, a verdict on each claim. Resumable."""
    from toolkit.environment import loading
    from toolkit.owned import check_shared

    check_shared(out, ["study.json"], ["runs"], "a study")
    with loading():
        from cli.screens.compare import StudyScreen, names, settings_loader, show_study
        from toolkit.training.processes.launch import check_devices
        from toolkit.training.processes.spread import Spread
        from toolkit.training.study.findings import write_study
        from toolkit.training.study.plan import carry_out, plan_arms, plan_runs

    check_devices(devices)
    over = Spread(jobs or devices, devices)
    arms = plan_arms(names(strategies), names(ablate))
    planned = plan_runs(arms, seeds, folds, settings_loader(config, overrides, cohort))
    with StudyScreen() as screen:
        failed = carry_out(planned, out / "runs", over, screen)
        study = write_study(out, arms, planned, failed, screen.measuring)
    show_study(study, out)
