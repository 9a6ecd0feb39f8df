"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from toolkit.machine import DEVICE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from deploy.model.folder import Model
    from toolkit.config import Settings

DEFAULT_CONFIG = Path("grade.toml")
INPUT, OUTPUT, MACHINE, SETTINGS = "Input", "Output", "Machine", "Settings"  # panels of --help
_CLUSTER = re.compile(r"auto|local|[^/\s]+:\d{1,5}")
_CAPABILITY = re.compile(r"\d{1,2}\.\d")


def _matching(pattern: re.Pattern[str], form: str) -> Callable[[str | None], str | None]:
    """A check of an option's word, so that a wrong one is wrong usage: exit code 2, before anything is read."""

    def check(word: str | None) -> str | None:
        if word is not None and not pattern.fullmatch(word):
            raise typer.BadParameter(f"'{word}' is not {form}.")
        return word

    return check


check_device = _matching(re.compile(DEVICE), "auto, cpu, cuda or cuda:N")


def device_words() -> list[str]:
    """For completion."""
    return ["auto", "cpu", "cuda", "cuda:0"]


def _rule(text: str | None) -> str | None:
    if text is not None:
        from toolkit.config import parse_rule  # here, so that --help answers at once

        try:
            parse_rule(text)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.") from None
    return text


def _capabilities(words: list[str] | None) -> list[str] | None:
    check = _matching(_CAPABILITY, "a compute capability such as 8.9")
    for word in words or ():
        check(word)
    return words


def list_of(names: Iterable[str]) -> Callable[[str], str]:
    """A check of a list separated by commas, each word one of some names."""

    def check(text: str) -> str:
        known = tuple(names)
        for word in filter(None, map(str.strip, text.split(","))):
            if word not in known:
                raise typer.BadParameter(f"'{word}' is not one of {', '.join(known)}.")
        return text

    return check


Strategy = Literal["stable", "ldam", "legacy"]
RuntimeWord = Literal["onnx", "tensorrt", "torch"]
Config = Annotated[
    Path, typer.Option("--config", "-c", help="Settings file.", metavar="FILE", rich_help_panel=SETTINGS)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, for example training.epochs=20. Repeatable.", rich_help_panel=SETTINGS),
]
ModelFolder = Annotated[
    Path, typer.Option("--model", "-m", help="Folder that `grade export` wrote.", rich_help_panel=INPUT)
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N.",
        callback=check_device,
        autocompletion=device_words,
        rich_help_panel=MACHINE,
    ),
]
PublicKey = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        help="Public key (PEM). Refuse a model that it did not sign.",
        rich_help_panel=INPUT,
    ),
]
NotBefore = Annotated[
    datetime | None,
    typer.Option(
        "--not-before",
        formats=["%Y-%m-%d"],
        help="With --require-signature: refuse a model exported before this day (UTC).",
        rich_help_panel=INPUT,
    ),
]
Revoked = Annotated[
    Path | None,
    typer.Option(
        "--revoked",
        help="With --require-signature: file of fingerprints, one a line, of signed models to refuse.",
        rich_help_panel=INPUT,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Keep the patients graded in --out and add to them.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the results in --out, other patients' too.", rich_help_panel=OUTPUT),
]
RuntimeName = Annotated[
    Literal["auto", "onnx", "tensorrt", "torch"],
    typer.Option(help="What executes the model.", rich_help_panel=MACHINE),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Grade on a Ray cluster: auto (one that runs here, else local), local (this machine alone), HOST:PORT.",
        callback=_matching(_CLUSTER, "auto, local or HOST:PORT"),
        autocompletion=lambda: ["auto", "local"],
        rich_help_panel=MACHINE,
    ),
]
Rule = Annotated[str | None, typer.Option(help="youden, sensitivity=0.95 or cost=FN:FP.", callback=_rule)]
Capabilities = Annotated[
    list[str] | None,
    typer.Option(
        "--compute-capability",
        help="Card to build for without a GPU, such as 8.9. Repeatable. RTX only.",
        callback=_capabilities,
        rich_help_panel="TensorRT",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT)]


def settings_from(
    config: Path,
    overrides: list[str] | None,
    strategy: str | None = None,
    changes: Mapping[str, object] = MappingProxyType({}),
) -> Settings:
    """The settings of a command: the file when it is there; a file asked for by name must be there.

    Raises:
        SettingsError: see `load_settings`.
    """
    from toolkit.config import load_settings  # here, so that --help answers at once

    file = config if config.exists() or config != DEFAULT_CONFIG else None
    return load_settings(file, strategy, tuple(overrides or ()), changes)


def signed_by(key: Path | None, not_before: datetime | None, revoked: Path | None) -> Callable[[Model], None] | None:
    """What refuses a model without a good signature, too old or revoked; None where no signature is asked for.

    Raises:
        BadParameter: a date or list without a key: what is not signed could say any date.
    """
    if key is None:
        if not_before or revoked:
            raise typer.BadParameter("--not-before and --revoked need --require-signature.")
        return None
    tools, day = signatures(), not_before.date() if not_before else None

    def check(model: Model) -> None:
        from deploy.model.revoked import refuse_revoked

        tools.check_signature(model, key)
        refuse_revoked(model, day, revoked)

    return check


def refuse_given(context: typer.Context, names: Sequence[str], because: str) -> None:
    """Refuse options that would have no effect in this call.

    Args:
        context: of the command.
        names: of its parameters.
        because: the end of the sentence.

    Raises:
        typer.BadParameter: one of them was given.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{parameter.opts[0]} has no effect {because}.")


def signatures() -> ModuleType:
    """`deploy.model.signature`, which needs a library that nothing else needs.

    Raises:
        RuntimeUnavailable: it is not installed.
    """
    from importlib.util import find_spec

    from toolkit.errors import RuntimeUnavailable

    if find_spec("cryptography") is None:
        raise RuntimeUnavailable("signatures need the package cryptography; pip install 'glioma-grade[sign]'.")
    import deploy.model.signature

    return deploy.model.signature


def extra(package: str, name: str) -> None:
    """See that a package which only some need is there.

    Args:
        package: to import.
        name: the extra of `grade` that brings it.

    Raises:
        RuntimeUnavailable: it is not installed.
    """
    from importlib.util import find_spec

    from toolkit.errors import RuntimeUnavailable

    if find_spec(package) is None:
        raise RuntimeUnavailable(f"this needs the package {package}; pip install 'glioma-grade[{name}]'.")
