"""A model watched over time: what it met, what it answered, and whether that is still what it was validated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.life.history import History, Met
from deploy.model.folder import Model
from deploy.predict.verdict import SINGLE, UNCERTAIN, UNDETERMINED, UNFAMILIAR
from toolkit.config import MonitorSettings
from toolkit.data.patients import CLASSES
from toolkit.errors import ModelError
from toolkit.evaluation.clinical import delong
from toolkit.evaluation.local.precision import Triple, observed_expected, proportion
from toolkit.evaluation.local.watch import Watched, expected_auc, watch_numbers, watch_outcomes, watch_share

VERDICTS = (SINGLE, UNCERTAIN, UNFAMILIAR, UNDETERMINED)
LEAST = 10  # patients, or outcomes, from which something can be watched


@dataclass(frozen=True)
class Period:
    """Some patients in a row.

    Attributes:
        first: day of the first.
        last: day of the last.
        patients: all of them.
        refused: those without a grade.
        hgg: share of HGG among the graded answers.
        verdicts: share of each verdict among the graded.
        distance: median feature distance.
        expected_auc: that the probabilities promise.
        outcomes: patients with a known grade.
        observed_expected: of these.
        auc: of these.
    """

    first: str
    last: str
    patients: int
    refused: int
    hgg: float | None
    verdicts: dict[str, float]
    distance: float | None
    expected_auc: float | None
    outcomes: int
    observed_expected: Triple
    auc: Triple


@dataclass(frozen=True)
class Alarm:
    """Something changed.

    Attributes:
        name: what.
        towards: where to.
        patient: its position among those that were watched, from 1.
        time: UTC, of the answer at which the limit was reached.
    """

    name: str
    towards: str
    patient: int
    time: str


@dataclass(frozen=True)
class Monitor:
    """What was found.

    Attributes:
        history: who was met.
        watched: each thing that was watched.
        alarms: the first of each.
        periods: in the order of time.
        refusals: reason -> patients.
        rate: of false alarms, each thing's share.
        notes: what could not be watched, and why.
    """

    history: History
    watched: tuple[Watched, ...]
    alarms: tuple[Alarm, ...]
    periods: tuple[Period, ...]
    refusals: dict[str, int]
    rate: float
    notes: tuple[str, ...]


def monitor(model: Model, history: History, settings: MonitorSettings) -> Monitor:
    """Watch everything that is known of a model's patients.

    Args:
        model: whose validation is the reference.
        history: who it met.
        settings: rates and limits.

    Raises:
        ModelError: the model holds no reference.
    """
    manifest = model.manifest
    if not manifest.baseline:
        raise ModelError(f"model {model.folder} keeps no statistics of its validation patients; export its run again.")
    everyone = history.patients
    graded = [one for one in everyone if one.record.grade is not None]
    known = [one for one in graded if one.grade is not None]
    kinds = len(manifest.baseline) + 1 + 1 + (1 + len(CLASSES) if len(known) >= LEAST else 0)
    rate = settings.false_alarms / kinds
    watched: list[tuple[Watched, Sequence[Met]]] = []
    if len(everyone) >= LEAST:
        refused = np.array([one.record.grade is None for one in everyone], np.int64)
        watched.append((watch_share("refused patients", refused, settings.refused, rate, settings.horizon), everyone))
    if len(graded) >= LEAST:
        watched += _numbers(model, graded, rate, settings.horizon)
    if len(known) >= LEAST:
        watched += _outcomes(model, known, rate, settings)
    alarms = [
        Alarm(one.name, one.towards, place + 1, people[place].time.isoformat(timespec="seconds"))
        for one, people in watched
        if (place := one.alarm) is not None
    ]
    blocks = [everyone[start : start + settings.period] for start in range(0, len(everyone), settings.period)]
    return Monitor(
        history,
        tuple(one for one, _ in watched),
        tuple(sorted(alarms, key=lambda one: one.time)),
        tuple(_period(block) for block in blocks),
        dict(Counter(one.record.reason for one in everyone if one.record.grade is None).most_common()),
        rate,
        _notes(history, len(graded), len(known)),
    )


def _numbers(model: Model, graded: Sequence[Met], rate: float, horizon: int) -> list[tuple[Watched, Sequence[Met]]]:
    """Answers, feature distance and each image statistic against the validation's, who lacked no modality."""
    manifest = model.manifest
    reference = [value for values in manifest.reference.values() for value in values]
    whole = [one for one in graded if not one.record.missing]
    answers = [one.record.probability or 0.0 for one in whole]
    found: list[tuple[Watched, Sequence[Met]]] = [(watch_numbers("P(HGG)", reference, answers, rate, horizon), whole)]
    for name, known in manifest.baseline.items():
        people = [one for one in graded if not one.record.missing or name in one.record.statistics]
        values = [_number(one, name) for one in people]
        found.append((watch_numbers(name.replace("_", " "), known, values, rate, horizon), people))
    return found


def _number(one: Met, name: str) -> float:
    """A distance that is no number is beyond all others."""
    value = one.record.distance if name == "distance" else one.record.statistics.get(name)
    return float("inf") if value is None else value


def _outcomes(
    model: Model, known: Sequence[Met], rate: float, settings: MonitorSettings
) -> list[tuple[Watched, Sequence[Met]]]:
    """Calibration, and the coverage of each grade, on patients whose grade is known by now."""
    grade = np.array([one.grade for one in known], np.int64)
    probability = np.array([one.record.probability for one in known], np.float64)
    found: list[tuple[Watched, Sequence[Met]]] = [
        (watch_outcomes("calibration", grade, probability, settings.odds, rate), known)
    ]
    for index, name in enumerate(CLASSES):
        people = [one for one in known if one.grade == index]
        if people:
            missed = np.array([name not in one.record.grades for one in people], np.int64)
            share = model.manifest.conformal.rate
            found.append((watch_share(f"{name} outside its set", missed, share, rate, settings.horizon), people))
    return found


def _period(block: Sequence[Met]) -> Period:
    graded = [one.record for one in block if one.record.grade is not None]
    known = [one for one in block if one.grade is not None and one.record.probability is not None]
    grade = np.array([one.grade for one in known], np.int64)
    probability = np.array([one.record.probability for one in known], np.float64)
    answers = np.array([record.probability for record in graded], np.float64)
    distances = [record.distance for record in graded if record.distance is not None]
    return Period(
        first=block[0].time.date().isoformat(),
        last=block[-1].time.date().isoformat(),
        patients=len(block),
        refused=len(block) - len(graded),
        hgg=proportion(sum(record.grade == CLASSES[1] for record in graded), len(graded))[0],
        verdicts={word: sum(record.verdict == word for record in graded) / max(len(graded), 1) for word in VERDICTS},
        distance=float(np.median(distances)) if distances else None,
        expected_auc=expected_auc(answers) if graded else None,
        outcomes=len(known),
        observed_expected=observed_expected(grade, probability) if known else (None, None, None),
        auc=delong(probability[grade == 0], probability[grade == 1]),
    )


def _notes(history: History, graded: int, known: int) -> tuple[str, ...]:
    notes = []
    if history.others:
        notes.append(f"{history.others} answers are of other models and do not count.")
    if history.older:
        notes.append(f"{history.older} answers are older than --since and do not count.")
    if history.repeated:
        notes.append(f"{history.repeated} answers are to images that had been answered before and do not count.")
    if history.unmatched:
        notes.append(f"{history.unmatched} outcomes are of nobody in these results.")
    if graded < LEAST:
        notes.append(f"{graded} patients were graded; watching begins with {LEAST}.")
    if 0 < known < LEAST:
        notes.append(f"{known} outcomes are known; watching them begins with {LEAST}.")
    return tuple(notes)
