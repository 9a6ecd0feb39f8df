"""The four series of a study: one for each modality, the losers with their reasons, or a refusal with the facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deploy.hospital.study.kinds import Judgement, SeriesRules, judge
from deploy.hospital.study.series import Series, not_an_image
from deploy.hospital.study.study import Study
from toolkit.data.patients import MODALITIES
from toolkit.errors import CohortError, PatientRefused

_UNCLEAR = "nothing says whether it is before or after contrast"


class Row(NamedTuple):
    """One line of the table of series.

    Attributes:
        series: which.
        kind: the modality, `t1?`, or empty.
        chosen: the modality that it was chosen for; empty if it was not.
        reason: the facts behind its kind, or why it is left out.
        outcome: chosen, lost to another, left out, contradicts itself.
    """

    series: Series
    kind: str
    chosen: str
    reason: str
    outcome: str


@dataclass(frozen=True)
class Selection:
    """The choice for one study.

    Attributes:
        chosen: modality -> series, in the order of `MODALITIES`.
        rows: every series of the study, by number.
    """

    chosen: Mapping[str, Series]
    rows: tuple[Row, ...]


class StudyRefused(PatientRefused):
    """A study that cannot be brought in; `rows` are its series with what became of each."""

    def __init__(self, reason: str, rows: tuple[Row, ...] = ()) -> None:
        super().__init__(reason)
        self.rows = rows


def choose_series(study: Study, rules: SeriesRules) -> Selection:
    """One series for each modality.

    Args:
        study: as `find_studies` gives it.
        rules: the site's names, and what the user forces.

    Raises:
        StudyRefused: a modality has no series, contrast cannot be told, or what is forced cannot be.
    """
    judged = {series.uid: judge(series, rules) for series in study.series}
    try:
        forced = {modality: _named(study, modality, word) for modality, word in rules.forced.items()}
        _no_series_twice(forced)
    except StudyRefused as refusal:
        raise StudyRefused(
            str(refusal), tuple(_row(series, judged[series.uid], {}, {}) for series in study.series)
        ) from None
    by_uid = {series.uid: series for series in study.series}
    for modality, series in forced.items():
        judged[series.uid] = Judgement(modality, True, "named by --series", 9)  # type: ignore[arg-type]
    _settle_contrast(by_uid, judged)
    chosen: dict[str, Series] = dict(forced)
    lost: dict[str, str] = {}
    for modality in MODALITIES:
        candidates = [by_uid[uid] for uid, one in judged.items() if one.kind == modality and one.usable]
        if not candidates:
            continue
        winner = chosen.setdefault(modality, max(candidates, key=lambda series: _rank(series, judged[series.uid])))
        lost |= {series.uid: _why_lost(series, winner, judged) for series in candidates if series.uid != winner.uid}
    rows = tuple(_row(series, judged[series.uid], chosen, lost) for series in study.series)
    if missing := [modality for modality in MODALITIES if modality not in chosen]:
        raise StudyRefused(_why_missing(missing, rows), rows)
    _same_patient(chosen, rows)
    return Selection({modality: chosen[modality] for modality in MODALITIES}, rows)


def check_forced(studies: Sequence[Study], rules: SeriesRules) -> None:
    """See that what `--series` names is meant for one study.

    Raises:
        CohortError: the path holds several studies; series 8 of one is not series 8 of another.
    """
    if rules.forced and len(studies) > 1:
        raise CohortError(
            f"--series names a series of one study, and there are {len(studies)}; name one study's folder."
        )


def _named(study: Study, modality: str, word: str) -> Series:
    """The series that the user named by number or UID."""
    if modality not in MODALITIES:
        raise StudyRefused(f"--series {modality}={word}: {modality} is none of {', '.join(MODALITIES)}")
    found = [series for series in study.series if word in (series.uid, str(series.number))]
    if len(found) != 1:
        numbers = ", ".join(series.name for series in study.series)
        what = (
            "no series has this number or UID"
            if not found
            else f"{len(found)} series have this number; name one by its UID"
        )
        raise StudyRefused(f"--series {modality}={word}: {what}; the study has the series {numbers}")
    if fault := not_an_image(found[0]) or found[0].fault:
        raise StudyRefused(f"--series {modality}={word}: series {found[0].name} {fault}")
    return found[0]


def _no_series_twice(forced: Mapping[str, Series]) -> None:
    seen: dict[str, str] = {}
    for modality, series in forced.items():
        if series.uid in seen:
            raise StudyRefused(f"--series names series {series.name} for both {seen[series.uid]} and {modality}")
        seen[series.uid] = modality


def _settle_contrast(by_uid: Mapping[str, Series], judged: dict[str, Judgement]) -> None:
    """T1 series without a mark of contrast, by what the study's other series say; `judged` is changed."""
    after = [by_uid[uid] for uid, one in judged.items() if one.kind == "t1ce" and one.usable]
    first = min((series for series in after if series.acquired), key=lambda series: series.acquired, default=None)
    starts = [header.agent_start for series in by_uid.values() for header in series.instances if header.agent_start]
    for uid, one in list(judged.items()):
        series = by_uid[uid]
        if one.kind == "t1?" and one.usable:
            judged[uid] = _settled(series, one, first, min(starts, default=""))
        elif (
            one.kind == "t1"
            and one.usable
            and first is not None
            and series.acquired > first.acquired
            and one.marks == 0
        ):
            why = f"{one.reason}, but acquired after series {first.name}, which is after contrast"
            judged[uid] = Judgement("conflict", False, why)
    _earliest_alone(by_uid, judged)


def _settled(series: Series, one: Judgement, first: Series | None, start: str) -> Judgement:
    when, said = series.acquired, f"{one.reason}; no mark of contrast"
    if start and when:
        if when[:12] < start[:12]:
            return Judgement("t1", True, f"{said}, acquired before the injection")
        return Judgement("t1ce", True, f"{said}, acquired after the injection", 1)
    if first is None or not when or when == first.acquired:
        return Judgement("t1?", False, f"{one.reason}; {_UNCLEAR}")
    if when < first.acquired:
        return Judgement("t1", True, f"{said}, acquired before series {first.name}, which is after contrast")
    return Judgement("t1?", False, f"{said}, but acquired after series {first.name}, which is after contrast")


def _earliest_alone(by_uid: Mapping[str, Series], free: dict[str, Judgement]) -> None:
    """Of several unmarked T1 series the earliest is surely before contrast; a later one may follow the injection."""
    unmarked = [
        uid for uid, one in free.items() if one.kind == "t1" and one.usable and "no mark of contrast" in one.reason
    ]
    if len(unmarked) < 2:
        return
    unmarked.sort(key=lambda uid: by_uid[uid].acquired)
    for uid in unmarked[1:]:
        if by_uid[uid].acquired > by_uid[unmarked[0]].acquired:
            why = f"{free[uid].reason}; series {by_uid[unmarked[0]].name} is earlier, and surely before the injection"
            free[uid] = Judgement("t1", False, why)


def _rank(series: Series, judgement: Judgement) -> tuple[int | bool | str, ...]:
    """Higher is better: surer of its contrast, original, more slices, 3-D, axial, later."""
    stack = series.stack
    original = "DERIVED" not in {word for slot in stack.slots for word in slot.frame.image_type}
    return (
        judgement.marks,
        original,
        len(stack.slots),
        series.head.acquisition == "3D",
        stack.plane == "axial",
        series.acquired,
        series.number or 0,
        series.uid,
    )


_BETTER = (
    "was named, or carries more marks of contrast",
    "is original, not derived",
    "has more slices",
    "is 3-D",
    "is axial",
    "is a later repeat",
    "has a higher number",
    "has a higher UID",
)


def _why_lost(series: Series, winner: Series, judged: Mapping[str, Judgement]) -> str:
    pairs = zip(_rank(winner, judged[winner.uid]), _rank(series, judged[series.uid]), _BETTER, strict=True)
    why = next(better for a, b, better in pairs if a != b)
    return f"lost to series {winner.name}, which {why}"


def _row(series: Series, one: Judgement, chosen: Mapping[str, Series], lost: Mapping[str, str]) -> Row:
    place = next((modality for modality, taken in chosen.items() if taken.uid == series.uid), "")
    if place:
        return Row(series, one.kind, place, one.reason, f"chosen as {place}")
    return Row(series, one.kind, "", one.reason, lost.get(series.uid, "left out"))


def _why_missing(missing: Sequence[str], rows: tuple[Row, ...]) -> str:
    """One clause for each reason; modalities that share one share the clause."""
    clauses: dict[str, list[str]] = {}
    for modality in missing:
        kinds = (modality, "t1?") if modality in ("t1", "t1ce") else (modality,)
        word = kinds[0].removesuffix("ce").upper()
        near = [row for row in rows if row.kind in kinds or (row.kind == "conflict" and word in row.reason.upper())]
        unclear = [row for row in near if row.kind == "t1?" and row.reason.endswith(_UNCLEAR)]
        if len(unclear) > 1:
            names = " and ".join(row.series.name for row in unclear)
            why = f"which of series {names} is after contrast? {_UNCLEAR}; name it with --series t1ce=NUMBER"
        elif near:
            why = ", and ".join(f"series {row.series.name}: {row.reason}" for row in near[:3] if not row.chosen)
        else:
            why = ""
        clauses.setdefault(why or "no series is of this kind", []).append(modality)
    return "; ".join(f"{' and '.join(names)} missing: {why}" for why, names in clauses.items())


def _same_patient(chosen: Mapping[str, Series], rows: tuple[Row, ...]) -> None:
    patients = {series.head.patient for series in chosen.values()}
    if len(patients) > 1:
        raise StudyRefused(f"its series carry {len(patients)} different patient ids: two patients in one study?", rows)
