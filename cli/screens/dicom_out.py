"""`grade predict STUDY --dicom-out DIR` after the grading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.console import say
from deploy.hospital.dicom_out import Out, write_answers
from deploy.hospital.study.kinds import SeriesRules
from deploy.model.folder import Model
from deploy.results.table import read_records
from toolkit.config.hospital import HospitalSettings


def write_out(paths: Sequence[Path], results: Path, model: Model, settings: HospitalSettings, out: Path) -> None:
    """Write the answers to the studies below the paths, and say how many and where."""
    how = Out(model, SeriesRules(names=settings.series.given), settings.objects, results)
    count = write_answers(paths, read_records(results), how, out)
    say(f"{count} answers as DICOM in {out}; `grade send {out} --to PEER` sends them to an archive.")
