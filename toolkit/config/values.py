"""Kinds of values that several sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator


def _to_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value  # TOML knows no paths


def _without_nul(value: Any) -> Any:
    if "\0" in str(value):
        raise ValueError("no file and no address can hold the character NUL")
    return value


SettingPath = Annotated[Path, BeforeValidator(_to_path), AfterValidator(_without_nul)]
Address = Annotated[str, AfterValidator(_without_nul)]
