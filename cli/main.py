"""`grade`: the command line. Its commands are in `cli.listing`."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import gate
from cli.console import any_terminal, begin, set_up
from cli.ending import sentences
from cli.listing import Listing, load_help

gc.freeze()  # what is loaded by now stays: the search for garbage, the last one too, need not look at it
app = typer.Typer(
    name="grade",
    cls=Listing,
    help="Grade glioma in brain MRI: train, calibrate, export, predict. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a traceback never shows a patient
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
        if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
            load_help()
        app(prog_name="grade")
