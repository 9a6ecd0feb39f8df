"""Models that were signed once and are not to be used any more: too old, or on a list."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

from deploy.model.folder import Model
from deploy.model.untrusted import read_plain
from toolkit.errors import GradeError, ModelError

_MOST = 2**20  # bytes of a list


def refuse_revoked(model: Model, not_before: date | None, revoked: Path | None) -> None:
    """Refuse a model that its maker has replaced; ask after its signature was checked.

    Args:
        model: opened.
        not_before: UTC day before which it must not have been exported.
        revoked: a file of fingerprints, one a line, whole or their first 12 digits or more; `#` begins a remark.

    Raises:
        ModelError: it is too old, or its fingerprint is in the file.
        GradeError: the file cannot be read.
    """
    if not_before is not None:
        try:
            created = datetime.fromisoformat(model.manifest.created)
        except ValueError:
            raise ModelError(f"model {model.folder} has no date that can be read; export it again.") from None
        day = created.astimezone(UTC).date()
        if day < not_before:
            raise ModelError(
                f"model {model.short} was exported on {day}, before {not_before}; get the current model from its maker."
            )
    for number, line in enumerate(_lines(revoked) if revoked else (), start=1):
        word = line.partition("#")[0].strip().lower()
        if word and not re.fullmatch("[0-9a-f]{12,64}", word):
            raise GradeError(
                f"{revoked}, line {number}: '{word[:80]}' is no fingerprint of 12 to 64 digits; correct it."
            )
        if word and model.fingerprint.startswith(word):
            raise ModelError(f"model {model.short} was revoked by {revoked}; get the current model from its maker.")


def _lines(path: Path) -> list[str]:
    try:
        return read_plain(path.resolve(), _MOST).decode().splitlines()
    except UnicodeDecodeError:
        raise GradeError(f"{path} is no text; write one fingerprint a line.") from None
