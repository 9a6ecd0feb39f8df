"""`grade`: the command line. Each command says what it takes and hands over; this file turns errors into sentences."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli.commands.bench import command as bench
from cli.commands.calibrate import command as calibrate
from cli.commands.check import command as check
from cli.commands.compare import command as compare
from cli.commands.demo import command as demo
from cli.commands.evaluate import command as evaluate
from cli.commands.export import command as export
from cli.commands.info import command as info
from cli.commands.ingest import command as ingest
from cli.commands.phantom import command as phantom
from cli.commands.predict import command as predict
from cli.commands.report import command as report
from cli.commands.sign import command as sign
from cli.commands.train import command as train
from cli.commands.verify import command as verify
from cli.console import fail
from toolkit.errors import GradeError

app = typer.Typer(
    name="grade",
    help="Grade glioma in brain MRI: train, calibrate, export, predict. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a traceback never shows a patient
    rich_markup_mode="rich",
)
app.command("train")(train)
app.command("export")(export)
app.command("predict")(predict)
app.command("check")(check)
app.command("ingest")(ingest)
app.command("evaluate")(evaluate)
app.command("calibrate")(calibrate)
app.command("report")(report)
app.command("compare")(compare)
app.command("phantom")(phantom)
app.command("demo")(demo)
app.command("bench")(bench)
app.command("info")(info)
app.command("sign")(sign)
app.command("verify")(verify)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("glioma-grade"))
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    no_phi: Annotated[
        bool,
        typer.Option("--no-phi", help="Print no patient's id, path or file name: grade --no-phi predict ..."),
    ] = False,
) -> None:
    if no_phi:
        from cli.privacy import enable

        enable(sys.argv[1:])


def run() -> None:
    """Entry point of the console script: exit code 1 and one sentence for every error that a user can mend."""
    try:
        app()
    except GradeError as error:
        fail(str(error))
    except OSError as error:  # a full disk, a folder that may not be written: nothing in the code can mend these
        fail(f"{error.strerror or error}: {error.filename}." if error.filename else f"{error}.")
    except MemoryError:
        fail("out of memory; use a smaller batch size or fewer workers.")
