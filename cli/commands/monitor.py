"""`grade monitor`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_CONFIG, INPUT, OUTPUT, AsJson, Config, ModelFolder, Overrides

EXAMPLES = (
    "grade monitor results",
    "grade monitor results-2026-* --outcomes pathology.csv --since 2026-01-01 --out monitor",
)


def command(
    results: Annotated[list[Path], typer.Argument(help="Results folders, each with its audit.jsonl.")],
    model: ModelFolder = Path("model"),
    outcomes: Annotated[
        Path | None, typer.Option(help="Table of grades by pathology, as far as known.", rich_help_panel=INPUT)
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Count answers from this day on (UTC).", rich_help_panel=INPUT),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.", rich_help_panel=OUTPUT)] = Path("monitor"),
    prometheus: Annotated[
        Path | None, typer.Option(help="Also write figures as a Prometheus text file.", rich_help_panel=OUTPUT)
    ] = None,
    config: Config = DEFAULT_CONFIG,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Watch a model over time: patients, refusals, verdicts, images and, with --outcomes, calibration and AUC.

    Exit code 0: no alarm; 3: an alarm; 1: an error.
    """
    from toolkit.owned import check_shared

    check_shared(out, ["monitor.html"], [], "a page of grade monitor")
    from cli.console import show_json
    from cli.options import settings_from
    from cli.privacy import hide_table
    from cli.screens.monitor import known_outcomes, show_monitor, write_monitor
    from deploy.life.history import read_history
    from deploy.life.monitor import monitor
    from deploy.life.monitor_page import facts
    from deploy.model.folder import open_model
    from toolkit.config import LabelTable

    settings = settings_from(config, overrides).monitor
    opened = open_model(model)
    table = LabelTable(file=outcomes) if outcomes else None
    hide_table(table)
    start = since.replace(tzinfo=UTC) if since else None
    found = monitor(opened, read_history(results, opened, known_outcomes(table), start), settings)
    write_monitor(out, prometheus, opened, found)
    if as_json:
        show_json(facts(opened, found))
    else:
        show_monitor(found, out)
    raise typer.Exit(3 if found.alarms else 0)
