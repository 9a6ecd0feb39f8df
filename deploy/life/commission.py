"""The acceptance test of a model at a site: the machine, the site's own patients, and the card's claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from deploy.bench import Bench, bench, candidates
from deploy.life.acceptance import Familiar, checks_of
from deploy.life.fit import fit_of
from deploy.model.folder import Model
from deploy.model.origin import Fit
from deploy.predict.grader import Seen
from deploy.predict.pipeline import PredictOptions, predict
from deploy.predict.verdict import UNFAMILIAR
from deploy.results.record import Record
from deploy.verify import Check as Finding
from deploy.verify import verify_model
from toolkit.config import CommissionSettings
from toolkit.data.content import salted
from toolkit.data.patients import Patient
from toolkit.errors import CohortError
from toolkit.evaluation.local.acceptance import Check, Verdict, verdict_of
from toolkit.evaluation.local.update import CrossFitted


@dataclass(frozen=True)
class Site:
    """Who a model is tried on.

    Attributes:
        patients: of the site.
        grades: of each patient, 0 LGG, 1 HGG, None unknown.
        notes: what to tell of these patients, one sentence each.
    """

    patients: tuple[Patient, ...]
    grades: tuple[int | None, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commission:
    """What was found.

    Attributes:
        verdict: what follows.
        checks: each judged figure.
        fit: on the patients with known grades; None without.
        graded_known: patients with a known grade that were graded.
        records: of all patients.
        familiar: see `Familiar`.
        findings: of the model folder's check.
        bench: of the runtimes here.
        notes: what to tell of the patients.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    fit: Fit | None
    graded_known: int
    records: tuple[Record, ...]
    familiar: Familiar
    findings: tuple[Finding, ...]
    bench: Bench
    notes: tuple[str, ...]

    @property
    def refused(self) -> tuple[Record, ...]:
        """Patients that could not be graded."""
        return tuple(record for record in self.records if record.grade is None)


def commission(
    model: Model,
    site: Site,
    options: PredictOptions,
    settings: CommissionSettings,
    watch: tuple[Callable[[str], None], Callable[[Record], None]],
) -> Commission:
    """Try a model on this machine and on these patients.

    Args:
        model: opened.
        site: the patients.
        options: as for `predict`.
        settings: what is acceptable.
        watch: called with what begins, and with each patient's record.

    Raises:
        CohortError: a patient was in the training, or all were refused.
        GradeError: as `predict`.
    """
    on_stage, on_record = watch
    on_stage("the model folder")
    findings = tuple(verify_model(model.folder, None))
    measured = bench(model, candidates(options.choice.device), (1,), None, on_stage)
    records: list[Record] = []
    contents: dict[str, str] = {}

    def keep(record: Record) -> None:
        records.append(record)
        on_record(record)

    def note_content(record: Record, seen: Seen) -> None:
        contents[record.patient] = seen.scan.content

    on_stage("the patients")
    predict(site.patients, model, replace(options, on_seen=note_content), on_record=keep)
    _refuse_known(model, contents)
    known = [
        (record, grade)
        for record, grade in zip(records, site.grades, strict=True)
        if grade is not None and record.grade
    ]
    familiar = _familiar(model, records)
    fit = _fit(model, known, familiar) if known else None
    seconds = median(record.seconds.read + record.seconds.infer for record in records if record.grade is not None)
    checks = checks_of(model.manifest, settings, (findings, measured, seconds), (len(records), familiar, fit))
    verdict, everyone = verdict_of(checks), tuple(records)
    return Commission(verdict, checks, fit, len(known), everyone, familiar, findings, measured, site.notes)


def _refuse_known(model: Model, contents: dict[str, str]) -> None:
    if not contents:
        raise CohortError("all patients were refused; the results folder says why.")
    for people, when in (
        (model.manifest.people, "the model's training or validation"),
        (model.manifest.adaptation.people if model.manifest.adaptation else None, "its adaptation"),
    ):
        if people is None:
            continue
        digests = set(people.digests)
        found = sorted(name for name, content in contents.items() if digests & set(salted(people.salt, [content])))
        if found:
            more = " and more" if len(found) > 5 else ""
            raise CohortError(
                f"{len(found)} of these patients were in {when}, by the content of their images"
                f" ({', '.join(found[:5])}{more}); an acceptance test takes other patients."
            )


def _familiar(model: Model, records: Sequence[Record]) -> Familiar:
    graded = [record for record in records if record.grade is not None]
    limit = model.manifest.out_of_distribution.distance
    outside: dict[str, int] = {}
    for record in graded:
        for name in record.outside:
            outside[name] = outside.get(name, 0) + 1
    return Familiar(
        len(graded),
        sum(record.verdict == UNFAMILIAR for record in graded),
        sum(limit is not None and not (record.distance is not None and record.distance <= limit) for record in graded),
        sum(bool(record.outside) for record in graded),
        dict(sorted(outside.items(), key=lambda one: -one[1])),
    )


def _fit(model: Model, known: Sequence[tuple[Record, int]], familiar: Familiar) -> Fit:
    """The answers against the known grades; a logit's order is that of its probability."""
    grade = np.array([grade for _, grade in known], np.int64)
    probability = np.array([record.probability for record, _ in known], np.float64)
    covered = np.array([model.manifest.classes[grade] in record.grades for record, grade in known], np.bool_)
    decided = np.array([record.grade == model.manifest.classes[1] for record, _ in known], np.bool_)
    answers = CrossFitted(probability, decided, covered)
    return fit_of(probability, grade, answers, (familiar.unfamiliar, familiar.graded))
