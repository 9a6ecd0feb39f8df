"""The commands: what `grade --help` says of each, and each one loaded once it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from toolkit.environment import instead

TRAIN, GRADE, SITE, CHECK, TRY = "Train", "Grade", "At a site", "Check", "Try"  # panels of `grade --help`


class Entry(NamedTuple):
    """A command in `grade --help`.

    Attributes:
        panel: where it stands.
        help: how its own help begins.
    """

    panel: str
    help: str


# All of them loaded, with their options, take longer than the help itself.
COMMANDS = {
    "init": Entry(
        TRAIN,
        "Write a grade.toml that explains every setting. All but the cohort are commented out, at their defaults.",
    ),
    "train": Entry(
        TRAIN, "Train and calibrate on the cohort that grade.toml names. Writes runs/NAME and points runs/latest at it."
    ),
    "export": Entry(
        TRAIN,
        "Export a run to ONNX (fp32, fp16), with --trt to TensorRT, "
        "and prove that it decides like the trained network.",
    ),
    "predict": Entry(GRADE, "Grade patients. Exit code 0: all graded; 3: some refused; 1: none graded, or an error."),
    "check": Entry(
        CHECK,
        "Read and check every patient without a model. For a cohort, also check its grades, sites and duplicates.",
    ),
    "ingest": Entry(
        GRADE, "Bring a scanner's study into BraTS space: recognise its series, register, turn, mask the brain."
    ),
    "serve": Entry(
        GRADE,
        "Receive studies from the archive, grade them, send the answers back. "
        "Stops on SIGTERM after the study in hand.",
    ),
    "send": Entry(
        GRADE, "Send answers to an archive (C-STORE or STOW-RS). What an earlier call has sent is not sent twice."
    ),
    "pull": Entry(
        GRADE,
        "Fetch the MR images of studies from an archive (C-MOVE or WADO-RS). Studies that are in --out already stay.",
    ),
    "evaluate": Entry(
        GRADE, "Grade patients of known grade: metrics with intervals, sites, a confusion table, pictures and a page."
    ),
    "commission": Entry(
        SITE,
        "Test a model at a site: this machine, the site's own patients, the card's claims. One page with the verdict.",
    ),
    "adapt": Entry(
        SITE, "Fit a model to a site: calibration, threshold and limits from local patients. No weight changes."
    ),
    "monitor": Entry(
        SITE, "Watch a model over time: patients, refusals, verdicts, images and, with --outcomes, calibration and AUC."
    ),
    "calibrate": Entry(TRAIN, "Fit the calibration and the threshold of a run again. Nothing is trained."),
    "report": Entry(
        TRAIN, "Write the pages of a run or of a prediction again. Nothing is trained, calibrated or graded."
    ),
    "compare": Entry(
        TRAIN,
        "Train strategies over several seeds and compare them: a table, a page, a verdict on each claim. Resumable.",
    ),
    "phantom": Entry(TRY, "Write a synthetic glioma cohort in BraTS 2018's layout, with true tumour masks."),
    "demo": Entry(
        TRY,
        "Do everything on a synthetic cohort, on a CPU: make patients, train, calibrate, export, grade new patients.",
    ),
    "bench": Entry(
        CHECK, "Benchmark every runtime on this machine, check its output, and make `auto` use the fastest correct one."
    ),
    "info": Entry(CHECK, "Show versions, devices and runtimes, and why a runtime is missing."),
    "sign": Entry(
        CHECK,
        "Sign a model with a private key, so that `grade predict --require-signature KEY.pub` takes it and no other.",
    ),
    "verify": Entry(
        CHECK,
        "Check a model (hashes, parity record, self-test, signature) or an audit file. "
        "Exit code 1: something is wrong.",
    ),
    "pacs": Entry(GRADE, "Ask an archive: echo, find."),
}


class _Markdown:
    """In place of Rich's, which Typer would use for help in Markdown: ours has Rich's markup."""


class _Traceback:
    """In place of Rich's until one is printed."""

    @staticmethod
    def from_exception(*given: Any, **named: Any) -> Any:
        """As Rich's."""
        from rich.traceback import Traceback

        return Traceback.from_exception(*given, **named)


def load_help() -> None:
    """Load what Typer prints help with, but not what that loads for Markdown and tracebacks: half of the time."""
    kinds: dict[str, type] = {"rich.markdown": _Markdown, "rich.traceback": _Traceback}
    with instead(kinds):
        import_module("typer.rich_utils")


class Listing(TyperGroup):
    """The group of all commands: entries to be shown and completed, replaced by the command that is called."""

    def __init__(self, **given: Any) -> None:
        entries = {
            name: TyperCommand(name, help=entry.help, rich_help_panel=entry.panel) for name, entry in COMMANDS.items()
        }
        super().__init__(**given | {"commands": entries})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that a call names."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and loaded(name or ""), rest


def loaded(name: str) -> Any:
    """A command with its options, and with the examples of its module below its help."""
    module = import_module(f"cli.commands.{name}")
    own = typer.Typer(rich_markup_mode="rich")
    if isinstance(group := getattr(module, "app", None), typer.Typer):
        own.add_typer(group, name=name, help=COMMANDS[name].help)
    else:
        examples: tuple[str, ...] = getattr(module, "EXAMPLES", ())
        lines = ("Examples:", *(f"[cyan]{escape(example)}[/]" for example in examples))
        own.command(name, epilog="\n\n".join(lines) if examples else None)(module.command)
    return get_group(own).commands[name]
