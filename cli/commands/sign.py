"""`grade sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import ModelFolder

EXAMPLES = (
    "grade sign hospital.pem --new-key",
    "grade sign hospital.pem --model model",
)


def command(
    key: Annotated[Path, typer.Argument(help="Private key (Ed25519, PEM).")],
    model: ModelFolder = Path("model"),
    new_key: Annotated[bool, typer.Option("--new-key", help="Make KEY and KEY.pub. Sign nothing.")] = False,
) -> None:
    """Sign a model with a private key, so that `grade predict --require-signature KEY.pub` takes it and no other."""
    from cli.console import answer
    from cli.options import signatures
    from deploy.model.folder import open_model

    tools = signatures()
    written = tools.new_key(key) if new_key else tools.sign_model(open_model(model), key)
    answer(f"{written} written")
