"""From the runs of a study to its numbers, `study.json` and its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from toolkit.arrays import Float64
from toolkit.data.layout import PHANTOMS
from toolkit.data.measures import Measures, measure_patients
from toolkit.data.patients import Cohort, Patient
from toolkit.errors import RunError
from toolkit.evaluation.baselines import Baseline, Side, baselines
from toolkit.evaluation.comparison import Answers, Pair, compare_arms, pairs_of
from toolkit.evaluation.metrics import auc
from toolkit.evaluation.pages.study_page import study_report
from toolkit.evaluation.stability import best_epoch, loss_spikes, stability
from toolkit.evaluation.study import (
    BaselineRecord,
    RunRecord,
    Study,
    drw_sentence,
    headline,
    summarise_arm,
    summary,
)
from toolkit.files import write_file
from toolkit.training.runs.folder import open_run
from toolkit.training.runs.run import Run
from toolkit.training.study.plan import ArmPlan, PlannedRun

_FLATTERED = (
    "Best epoch, calibration and threshold rest on the same validation patients as the numbers, in every arm alike: "
    "differences are fair, the level is flattered a little. Baselines choose nothing on these patients."
)


def write_study(
    out: Path,
    arms: Sequence[ArmPlan],
    planned: Sequence[PlannedRun],
    failed: Mapping[str, str],
    measuring: Callable[[int], AbstractContextManager[Callable[[Patient], None]]],
) -> Study:
    """Write `study.json` and `report.html` of the trainings that have ended.

    Args:
        out: the study's folder, with its runs in `runs`.
        arms: what was compared.
        planned: all trainings.
        failed: name -> sentence.
        measuring: so many patients are about to be measured for the baselines; the result is called after each.

    Raises:
        RunError: no training has ended, or a file is broken or cannot be written.
        CohortError: a patient cannot be measured.
    """
    ended = _ended(out, planned)
    if not ended:
        raise RunError(f"no training of {out} has ended: {'; '.join(failed.values()) or 'start it again'}.")
    records = [_record(one, run) for one, run in ended.items()]
    of_arm = {arm.name: [record for record in records if record.arm == arm.name] for arm in arms}
    summaries = [summarise_arm(arm.name, arm.changes, of_arm[arm.name]) for arm in arms if of_arm[arm.name]]
    simple = _baselines(ended, measuring)
    late = [drw_sentence(arm, of_arm[arm.name]) for arm in summaries]
    missing = len(planned) - len(ended)
    study = Study(
        headline=headline(summaries, simple),
        notes=(
            *(sentence for sentence in late if sentence),
            *([f"{missing} of {len(planned)} trainings have not ended and are left out."] if missing else []),
            _FLATTERED,
            *([PHANTOMS] if any(run.synthetic for run in ended.values()) else []),
        ),
        arms=tuple(summaries),
        baselines=tuple(simple),
        pairs=tuple(_pairs(arms, ended)),
        runs=tuple(records),
        failed=dict(failed),
        details=_details(list(ended.values())),
    )
    for name, text in (
        ("study.json", study.model_dump_json(indent=2) + "\n"),
        ("report.html", study_report(out.resolve().name, study)),
    ):
        write_file(out / name, text, RunError)
    return study


def _ended(out: Path, planned: Sequence[PlannedRun]) -> dict[PlannedRun, Run]:
    runs = {one: open_run(out / "runs" / one.name) for one in planned if (out / "runs" / one.name).exists()}
    return {one: run for one, run in runs.items() if run.ended}


def _record(planned: PlannedRun, run: Run) -> RunRecord:
    history, table, calibration = run.history(), run.validation(), run.calibration()
    best = best_epoch(history)
    spread, trend, gap, peak = stability(history)
    decided = calibration.probability(table.logit) >= calibration.threshold
    return RunRecord(
        name=planned.name,
        arm=planned.arm,
        seed=planned.seed,
        fold=planned.fold[0] if planned.fold else None,
        auc=auc(table.grades, table.logit),
        accuracy=float((decided == (table.grades == 1)).mean()),
        spread=spread.value,
        trend=trend.value,
        gap=gap.value,
        peak=peak.value,
        spikes=loss_spikes(run.step_losses()),
        epochs=len(history),
        best_epoch=best.epoch if best else 0,
        drw_epoch=run.settings.training.drw_epoch,
        seconds=sum(row.seconds for row in history),
        val_auc=tuple(row.val_auc for row in history),
        train_loss=tuple(row.train_loss for row in history),
    )


def _pairs(arms: Sequence[ArmPlan], ended: Mapping[PlannedRun, Run]) -> list[Pair]:
    answers: dict[str, dict[tuple[int, object], Answers]] = {arm.name: {} for arm in arms}
    for planned, run in ended.items():
        table = run.validation()
        answers[planned.arm][planned.seed, planned.fold] = Answers(
            patients=table.patients, grade=tuple(table.grades.tolist()), logit=tuple(table.logit.tolist())
        )
    levers = {arm.name: arm.strategy for arm in arms if arm.changes}
    found = []
    for one, other in pairs_of([arm.name for arm in arms if not arm.changes], levers):
        common = [split for split in answers[one] if split in answers[other]]
        pair = compare_arms(one, other, {arm: [answers[arm][split] for split in common] for arm in (one, other)})
        if pair is not None:
            found.append(pair)
    return found


def _baselines(
    ended: Mapping[PlannedRun, Run], measuring: Callable[[int], AbstractContextManager[Callable[[Patient], None]]]
) -> list[BaselineRecord]:
    """Fitted and tested on each split once; folds of a seed are averaged first."""
    splits = {(one.seed, one.fold): run for one, run in ended.items()}
    first = next(iter(splits.values()))
    everyone = first.training_patients().joined(first.validation_patients())
    with measuring(len(everyone)) as on_measured:
        measures = measure_patients(everyone.patients, on_measured)
    rows = {patient.folder: row for patient, row in zip(everyone.patients, measures.table, strict=True)}
    scores: dict[tuple[str, str], dict[int, list[tuple[float | None, float]]]] = {}
    for (seed, _), run in splits.items():
        for one in _graded(run, rows, measures):
            grade = run.validation_patients().grade_array
            accuracy = float(((one.probability >= 0.5) == (grade == 1)).mean())
            of_seed = scores.setdefault((one.name, one.looks_at), {}).setdefault(seed, [])
            of_seed.append((auc(grade, one.probability), accuracy))
    return [
        BaselineRecord(
            name=name,
            looks_at=looks_at,
            auc=summary([summary([area for area, _ in folds]).mean for folds in seeds.values()]),
            accuracy=summary([summary([share for _, share in folds]).mean for folds in seeds.values()]),
        )
        for (name, looks_at), seeds in scores.items()
    ]


def _graded(run: Run, rows: Mapping[Path, Float64], measures: Measures) -> list[Baseline]:
    def side(cohort: Cohort) -> Side:
        table = np.array([rows[patient.folder] for patient in cohort.patients])
        return Side(cohort.grade_array, cohort.sites or (None,) * len(cohort), table)

    return baselines(side(run.training_patients()), side(run.validation_patients()), measures)


def _details(runs: Sequence[Run]) -> dict[str, str]:
    """Cohort, versions and devices; those that differ between runs are all named."""
    cohort = runs[0].settings.data.cohort
    counts = (len(runs[0].training_patients()), len(runs[0].validation_patients()))
    found = {
        "Cohort": cohort.name if cohort else "unknown",
        "Patients": f"{counts[0]} for training, {counts[1]} for validation in the first split",
        "Labels": runs[0].labels(),
    }
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in run.environment().items():
            values.setdefault(name, {})[value] = None
    return found | {name: ", ".join(different) for name, different in values.items()}
