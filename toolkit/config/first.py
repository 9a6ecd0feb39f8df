"""A first `grade.toml`: every setting with its default and what it means, commented out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel

from toolkit.config.settings import Settings
from toolkit.errors import SettingsError

_HEAD = """\
# Settings of grade. Lines that begin with "# " and a name show the default; take the "# " away to change one.
# Paths are relative to this file. What a single training needs otherwise: grade train --set branch.key=value.

# strategy = "stable"
"""


def write_first_settings(file: Path, cohort: Path) -> None:
    """Write a settings file that names a cohort and explains all else.

    Args:
        file: to write; it must not exist.
        cohort: folder of patients.

    Raises:
        SettingsError: the file exists, or cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write("\n".join([_HEAD, *_lines(Settings(), "", cohort)]) + "\n")
    except FileExistsError:
        raise SettingsError(f"{file} exists; name another file with --out, or delete it first.") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror or error}.") from error


def _lines(branch: BaseModel, above: str, cohort: Path) -> Iterator[str]:
    for name, field in type(branch).model_fields.items():
        value = getattr(branch, name)
        if isinstance(value, BaseModel) or name == "strategy":
            continue
        about = f"  # {field.description}" if field.description else ""
        if (above, name) == ("data", "cohort"):
            yield f"{name} = {_toml(str(cohort))}{about}"
        elif value not in (None, {}):
            yield f"# {name} = {_toml(value)}{about}"
        else:
            yield f"#   {name}: not set{about}"
    for name, value in branch:
        if isinstance(value, BaseModel):
            title = f"{above}.{name}" if above else name
            yield f"\n[{title}]"
            yield from _lines(value, title, cohort)


def _toml(value: Any) -> str:
    plain = json.loads(json.dumps(value, default=str))
    if isinstance(plain, list):
        return f"[{', '.join(map(_toml, plain))}]"
    return tomli_w.dumps({"x": plain}).partition("=")[2].strip()
