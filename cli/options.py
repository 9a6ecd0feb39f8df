"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from toolkit.config import Settings

DEFAULT_CONFIG = Path("grade.toml")

Config = Annotated[Path, typer.Option("--config", "-c", help="Settings file.", metavar="FILE")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, for example training.epochs=20; repeatable.")
]
ModelFolder = Annotated[Path, typer.Option("--model", "-m", help="Folder that `grade export` wrote.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PublicKey = Annotated[
    Path | None, typer.Option("--require-signature", help="Public key (PEM); refuse a model that it did not sign.")
]
RuntimeName = Annotated[str, typer.Option(help="auto, onnx, tensorrt or torch.")]


def settings_from(config: Path, overrides: list[str] | None, strategy: str | None = None) -> Settings:
    """The settings of a command: the file when it is there; a file asked for by name must be there.

    Raises:
        SettingsError: see `load_settings`.
    """
    from toolkit.config import load_settings  # here, so that --help answers at once

    file = config if config.exists() or config != DEFAULT_CONFIG else None
    return load_settings(file, strategy, tuple(overrides or ()))


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
    """`deploy.signature`, which needs a library that nothing else needs.

    Raises:
        RuntimeUnavailable: it is not installed.
    """
    from importlib.util import find_spec

    from toolkit.errors import RuntimeUnavailable

    if find_spec("cryptography") is None:
        raise RuntimeUnavailable("signatures need the package cryptography; pip install 'glioma-grade[sign]'.")
    import deploy.signature

    return deploy.signature


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
