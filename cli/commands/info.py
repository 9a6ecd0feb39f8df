"""`grade info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import AsJson

if TYPE_CHECKING:
    from deploy.model.folder import Model


EXAMPLES = (
    "grade info",
    "grade info --model model --self-test",
    "grade info --json",
)


def command(
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Also show this model folder.")] = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Let the model answer its stored scan. Exit code 1 if the answer is wrong."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show versions, devices and runtimes, and why a runtime is missing."""
    from dataclasses import asdict

    from cli.console import show_json, table
    from cli.tables import show_engines, show_model
    from deploy.machine import gpus, package_versions, runtimes, system
    from deploy.model.folder import ENGINES, open_model
    from deploy.tensorrt.engine_files import EngineRecord, records

    found = gpus()
    opened = open_model(model) if model else None
    engines = list(records(opened.folder / ENGINES)) if opened else []
    if self_test:
        _self_test(opened)
    if as_json:
        facts = {
            "system": system(),
            "packages": package_versions(),
            "gpus": [asdict(gpu) for gpu in found],
            "runtimes": [asdict(state) for state in runtimes(found)],
            "model": opened.manifest.model_dump(mode="json") if opened else None,
            "engines": {
                path.stem: record.model_dump(mode="json") if isinstance(record, EngineRecord) else str(record)
                for path, record in engines
            },
        }
        show_json(facts)
        return
    table(
        "Versions", ("", ""), [*system().items(), *((k, v or "not installed") for k, v in package_versions().items())]
    )
    table(
        "GPUs",
        ("", "memory", "driver", "capability"),
        [(g.name, f"{g.memory_gib} GiB", g.driver, g.compute_capability) for g in found] or [("none", "", "", "")],
    )
    table(
        "Runtimes",
        ("", "devices", "why not"),
        [(r.name, ", ".join(r.devices) or "none", r.reason) for r in runtimes(found)],
    )
    if opened:
        show_model(opened)
    if engines:
        show_engines(engines)


def _self_test(model: Model | None) -> None:
    from cli.console import say
    from deploy.runtime import Choice
    from deploy.runtimes.open import open_runtime
    from deploy.selftest import run_selftest
    from toolkit.errors import ModelError

    if model is None:
        raise ModelError("--self-test needs a model; name its folder with --model.")
    model.verify()
    runtime = open_runtime(model, Choice())
    run_selftest(model, runtime)
    say(f"{runtime.chosen} Self-test passed.")
