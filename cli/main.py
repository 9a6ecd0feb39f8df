"""`grade`: the command line. Each command says what it takes and hands over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from typer.models import CommandInfo

from cli import gate
from cli.commands.adapt import command as adapt
from cli.commands.bench import command as bench
from cli.commands.calibrate import command as calibrate
from cli.commands.check import command as check
from cli.commands.commission import command as commission
from cli.commands.compare import command as compare
from cli.commands.demo import command as demo
from cli.commands.evaluate import command as evaluate
from cli.commands.export import command as export
from cli.commands.info import command as info
from cli.commands.ingest import command as ingest
from cli.commands.init import command as init
from cli.commands.monitor import command as monitor
from cli.commands.pacs import app as pacs
from cli.commands.phantom import command as phantom
from cli.commands.predict import command as predict
from cli.commands.pull import command as pull
from cli.commands.report import command as report
from cli.commands.send import command as send
from cli.commands.serve import command as serve
from cli.commands.sign import command as sign
from cli.commands.train import command as train
from cli.commands.verify import command as verify
from cli.console import any_terminal, begin, set_up
from cli.ending import sentences

app = typer.Typer(
    name="grade",
    help="Grade glioma in brain MRI: train, calibrate, export, predict. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a traceback never shows a patient
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init)
app.command("train")(train)
app.command("export")(export)
app.command("predict")(predict)
app.command("check")(check)
app.command("ingest")(ingest)
app.command("serve")(serve)
app.command("send")(send)
app.command("pull")(pull)
app.add_typer(pacs, name="pacs", help="Ask an archive: echo, find.", rich_help_panel="Grade")
app.command("evaluate")(evaluate)
app.command("commission")(commission)
app.command("adapt")(adapt)
app.command("monitor")(monitor)
app.command("calibrate")(calibrate)
app.command("report")(report)
app.command("compare")(compare)
app.command("phantom")(phantom)
app.command("demo")(demo)
app.command("bench")(bench)
app.command("info")(info)
app.command("sign")(sign)
app.command("verify")(verify)

_PANELS = {
    "Train": ("init", "train", "compare", "report", "calibrate", "export"),
    "Grade": ("predict", "evaluate", "ingest", "serve", "send", "pull"),
    "At a site": ("commission", "adapt", "monitor"),
    "Check": ("check", "verify", "sign", "bench", "info"),
    "Try": ("demo", "phantom"),
}


def _complete(info: CommandInfo) -> None:
    """Give a command its panel in `grade --help`, and the examples of its module below its own help."""
    examples: tuple[str, ...] = getattr(sys.modules[info.callback.__module__], "EXAMPLES", ())
    if examples:
        info.epilog = "\n\n".join(("Examples:", *(f"[cyan]{escape(example)}[/]" for example in examples)))
    info.rich_help_panel = next((panel for panel, names in _PANELS.items() if info.name in names), "Other")


for _info in app.registered_commands:
    _complete(_info)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(_installed())
        raise typer.Exit


def _installed() -> str:
    from importlib.metadata import PackageNotFoundError, version  # a tenth of what `grade --help` takes

    try:
        return version("glioma-grade")
    except PackageNotFoundError:
        return "not installed: run from its source"


@app.callback()
def _main(
    context: typer.Context,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    no_phi: Annotated[
        bool,
        typer.Option("--no-phi", help="Print no word that could name a patient: no id, path or file name."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show results, notes and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show details and where errors arise.")] = False,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", help="Append every message, without patients' names, to a file.")
    ] = None,
) -> None:
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose contradict each other.")
    set_up(quiet, verbose, log_file)
    if no_phi:
        from cli.privacy import enable

        enable(sys.argv[1:])
    if log_file:
        begin(f"grade {context.invoked_subcommand}, version {_installed()}")


def run() -> None:
    """Entry point of the console script: exit code 1 and one sentence for every error that a user can fix."""
    any_terminal()
    if gate.wanted(sys.argv[1:]):
        sys.exit(gate.run_behind(sys.argv[1:]))
    with sentences():
        app(prog_name="grade")
