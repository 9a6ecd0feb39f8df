"""What `grade ingest` shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.console import note, out, say, stages, table
from deploy.hospital.study.choose import Row, StudyRefused, check_forced, choose_series
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.study import Study, find_studies
from toolkit.config.hospital import SeriesNames
from toolkit.data.patients import MODALITIES
from toolkit.errors import SettingsError

SOME_REFUSED = 3
SHOWN_FILES = 20  # rejected files named; --json has all


def rules_from(names: SeriesNames, series: Sequence[str] | None) -> SeriesRules:
    """The site's names and what `--series` forces.

    Args:
        names: `[hospital.series]`.
        series: `modality=NUMBER` or `modality=UID`, each.

    Raises:
        SettingsError: one is written differently, or names a modality twice.
    """
    forced: dict[str, str] = {}
    for text in series or ():
        modality, _, word = (part.strip() for part in text.partition("="))
        if modality not in MODALITIES or not word or modality in forced:
            raise SettingsError(
                f"--series {text}: write modality=NUMBER or modality=UID, each of {', '.join(MODALITIES)} once at most."
            )
        forced[modality] = word
    return SeriesRules(names.given, forced)


def show_studies(path: Path, rules: SeriesRules, as_json: bool) -> int:
    """The series of every study at a path and the choice among them; gives the exit code."""
    with stages() as stage:
        stage("reading headers")
        studies = find_studies(path)
    check_forced(studies, rules)
    facts, refused = [], 0
    for study in studies:
        rows, reason = _chosen(study, rules)
        refused += bool(reason)
        if as_json:
            facts.append(_facts(study, rows, reason))
        else:
            _show(study, rows, reason)
    if as_json:
        out.print_json(json.dumps({"studies": facts}, allow_nan=False))
    if not refused:
        return 0
    return 1 if refused == len(studies) else SOME_REFUSED


def _chosen(study: Study, rules: SeriesRules) -> tuple[tuple[Row, ...], str]:
    try:
        return choose_series(study, rules).rows, ""
    except StudyRefused as refusal:
        return refusal.rows, str(refusal)


def _show(study: Study, rows: Sequence[Row], reason: str) -> None:
    cells = [
        (row.series.name, row.series.description, str(row.series.count), row.kind, row.outcome, row.reason)
        for row in rows
    ]
    table(f"Study {study.key}", ("series", "name", "images", "kind", "outcome", "reason"), cells)
    rejected = [*study.rejected, *(one for series in study.series for one in series.rejected)]
    for one in rejected[:SHOWN_FILES]:
        note(f"{one.source.name} {one.reason}.")
    if len(rejected) > SHOWN_FILES:
        note(f"{len(rejected) - SHOWN_FILES} more files are part of no series; --json lists them all.")
    say(f"refused: {reason}." if reason else "four series recognised.")


def _facts(study: Study, rows: Sequence[Row], reason: str) -> dict[str, Any]:
    rejected = [*study.rejected, *(one for series in study.series for one in series.rejected)]
    return {
        "study": study.key,
        "refused": reason,
        "chosen": {row.chosen: row.series.name for row in rows if row.chosen},
        "series": [
            {
                "number": row.series.number,
                "uid": row.series.uid,
                "name": row.series.description,
                "images": row.series.count,
                "kind": row.kind,
                "chosen": row.chosen,
                "outcome": row.outcome,
                "reason": row.reason,
            }
            for row in rows
        ],
        "rejected": [{"file": one.source.name, "reason": one.reason} for one in rejected],
    }
