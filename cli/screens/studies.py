"""Which of the paths of a prediction hold DICOM, and what that asks for; light, as every prediction asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from cli.options import extra
from deploy.hospital.study.listing import is_dicom


def studies_in(paths: Sequence[Path], dry_run: bool, dicom_out: bool) -> list[Path]:
    """The paths that hold DICOM.

    Raises:
        RuntimeUnavailable: there are some, and the extra `hospital` is not installed.
        BadParameter: `--dry-run` cannot show them; `--dicom-out` has none to answer.
    """
    dicom = [path for path in paths if is_dicom(path)]
    if dicom and dry_run:
        raise typer.BadParameter(f"{dicom[0]} holds DICOM; `grade ingest {dicom[0]} --dry-run` shows its series.")
    if dicom:
        extra("SimpleITK", "hospital")
    if dicom_out:
        extra("highdicom", "hospital")
        if not dicom:
            raise typer.BadParameter("--dicom-out answers DICOM studies, and none of the paths holds one.")
    return dicom
