"""What `grade adapt` shows."""

from __future__ import annotations

from typing import Any

from cli.console import answer, note, say
from cli.tables import show_section
from deploy.life.adapt import Adapted
from deploy.life.adapt_page import PAGE, change_of, learned, precision


def show_adapted(result: Adapted) -> None:
    """Before and after, what was learned, and how many patients more precision takes."""
    manifest = result.model.manifest
    for one in result.refused:
        note(f"{one.patient} was refused: {one.reason}.")
    if manifest.adaptation is None:
        return
    for sentence in (*manifest.adaptation.notes, *manifest.calibration.notes):
        note(sentence)
    show_section(change_of(manifest.adaptation))
    show_section(learned(manifest.calibration, manifest.conformal, manifest.adaptation))
    show_section(precision(result.needed))
    answer(f"model {result.model.short} in {result.model.folder}, from {manifest.adaptation.parent[:12]}")
    say(f"page: {result.model.folder / PAGE}; next: grade sign KEY --model {result.model.folder}")


def facts(result: Adapted) -> dict[str, Any]:
    """An adaptation as JSON knows it; digests stay in the manifest."""
    manifest = result.model.manifest
    found = manifest.adaptation
    return {
        "model": str(result.model.folder),
        "fingerprint": result.model.fingerprint,
        "adaptation": found.model_dump(mode="json", exclude={"people"}) if found else None,
        "calibration": manifest.calibration.model_dump(mode="json"),
        "conformal": manifest.conformal.model_dump(mode="json"),
        "refused": {one.patient: one.reason for one in result.refused},
        "needed": [row._asdict() for row in result.needed],
        "page": str(result.model.folder / PAGE),
    }
