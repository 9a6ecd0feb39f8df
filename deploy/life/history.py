"""What a model answered over time, read from results folders and their audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from deploy.model.folder import Model
from deploy.results.audit import audit_of, check_answer
from deploy.results.journal import last_records
from deploy.results.record import Record
from toolkit.errors import GradeError


class Met(NamedTuple):
    """A patient that the model met.

    Attributes:
        time: of the answer, UTC.
        record: the answer.
        grade: by pathology, 0 LGG, 1 HGG; None while it is not known.
    """

    time: datetime
    record: Record
    grade: int | None


class History(NamedTuple):
    """Everybody that a model met, in the order of time.

    Attributes:
        patients: see `Met`.
        others: answers of other models, which do not count.
        older: answers from before the time that was asked for.
        repeated: answers to images that had been answered before, which do not count.
        unmatched: outcomes of nobody.
    """

    patients: tuple[Met, ...]
    others: int
    older: int
    repeated: int
    unmatched: int


def read_history(folders: Sequence[Path], model: Model, outcomes: Mapping[str, int], since: datetime | None) -> History:
    """Read results folders.

    Args:
        folders: of `grade predict`, `grade evaluate` or `grade serve`, each with its `audit.jsonl`.
        model: whose answers count.
        outcomes: id -> grade by pathology, as far as known.
        since: answers before do not count; None counts all.

    Raises:
        GradeError: a folder holds no results, or they were altered.
    """
    met: list[Met] = []
    others = 0
    for folder in folders:
        lines = audit_of(folder)
        for fingerprint, line, record in last_records(folder):
            if line not in lines:
                raise GradeError(f"{folder}: the audit has no line {line}, which the results name; see grade verify.")
            if fingerprint != model.fingerprint:
                others += 1
                continue
            check_answer(folder, lines[line], record)
            met.append(Met(datetime.fromisoformat(lines[line]["time"]), record, outcomes.get(record.patient)))
    met.sort(key=lambda one: (one.time, one.record.patient))
    seen: set[str] = set()
    kept: list[Met] = []
    for one in met:
        if one.record.inputs and one.record.inputs in seen:
            continue
        seen.add(one.record.inputs)
        kept.append(one)
    unmatched = len(outcomes.keys() - {one.record.patient for one in met})
    recent = tuple(one for one in kept if since is None or one.time >= since)
    return History(recent, others, len(kept) - len(recent), len(met) - len(kept), unmatched)
