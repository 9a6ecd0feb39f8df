"""A model fitted to a site: calibration, threshold and limits learned from local patients; no weight is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2
import numpy as np

from deploy.export.familiarity import Seen, baseline
from deploy.life.adapt_page import PAGE, adapt_page
from deploy.life.fit import answered, count_unfamiliar, fit_of
from deploy.life.look import Looked, Refused, known_among, look
from deploy.model.folder import CARD, MANIFEST, Draft, Model, file_hashes, open_model, write_manifest
from deploy.model.manifest import Manifest
from deploy.model.origin import Adaptation, People
from deploy.parity import check_parity
from deploy.predict.verdict import read_space
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from deploy.selftest import run_selftest
from toolkit.arrays import Float64, Int64
from toolkit.data.content import salted
from toolkit.data.patients import CLASSES, Cohort, Patient
from toolkit.errors import CohortError, ModelError
from toolkit.evaluation.conformal import RATE
from toolkit.evaluation.familiarity import DISTANCE_CONFIDENCE, DISTANCE_RATE, IMAGE_RATE, Familiarity, fit_bounds
from toolkit.evaluation.familiarity_fit import tolerance_limit
from toolkit.evaluation.local.precision import Needed, needed, patients_for_coverage, patients_for_ratio
from toolkit.evaluation.local.update import FEWEST, cross_fitted, update_calibration
from toolkit.evaluation.pages.sheet import limits
from toolkit.files import building, check_output, put

COMPARED = 8  # scans on which the runtimes are compared under the new calibration
FOLDS = 10  # of the rate of unfamiliar patients


class Wish(NamedTuple):
    """What to make.

    Attributes:
        out: folder of the new model.
        rule: of the threshold; None: the parent's.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    out: Path
    rule: str | None
    device: str


class Adapted(NamedTuple):
    """What came of it.

    Attributes:
        model: the new one.
        refused: patients that cannot be read.
        needed: how many patients which precision takes.
    """

    model: Model
    refused: tuple[Refused, ...]
    needed: tuple[Needed, ...]


class _Local(NamedTuple):
    """The site's patients: those with grades, and everybody."""

    labelled: list[Looked]
    everyone: list[Looked]
    logit: Float64
    grade: Int64


def adapt_model(
    model: Model, cohort: Cohort, unlabelled: Sequence[Patient], wish: Wish, on_done: Callable[[object], None]
) -> Adapted:
    """Fit a model to a site, and put the new model at `wish.out`.

    Args:
        model: as exported; each of its files is checked.
        cohort: local patients with known grades, none of whom was in the training.
        unlabelled: further local patients, for what is familiar.
        wish: what to make.
        on_done: called after each patient that was read.

    Raises:
        CohortError: too few patients, some who were in the training, or the model does not rank their grades.
        ModelError: the model cannot be adapted, or its runtimes differ under the new calibration.
    """
    people = _check_model(model, wish.out)
    model.verify()
    _check_enough(cohort.grade_array, "")
    runtime = open_runtime(model, Choice("onnx", wish.device, "fp32"))
    run_selftest(model, runtime)
    seen, refused = look(model, runtime, (*cohort.patients, *unlabelled), COMPARED, on_done)
    if known := known_among(people, seen):
        raise CohortError(
            f"{len(known)} of these patients were in the model's training or validation, by the content of their images"
            f" ({', '.join(known[:5])}{' and more' if len(known) > 5 else ''}); leave them out."
        )
    local = _local(cohort, seen)
    _check_enough(local.grade, f" after {len(refused)} were refused")
    manifest = _fitted(model, people.salt, local, len(refused), wish.rule)
    table = needed(local.grade, manifest.calibration.probability(local.logit), manifest.conformal.rate)
    with building(wish.out, "model") as folder:
        for name in model.manifest.files:
            (folder / name).write_bytes(model.read(name))
        draft = Draft(folder, manifest, fingerprint="")
        scans = [(one.patient.id, one.scan) for one in seen if one.scan is not None]
        half = open_runtime(draft, Choice("onnx", wish.device, "fp16"))
        check_parity(draft, open_runtime(draft, Choice("onnx", "cpu", "fp32")), [half], scans, len(local.labelled))
        run_selftest(draft, half)
        (folder / CARD).write_text(model.read(CARD).decode() + _section(manifest), encoding="utf-8")
        (folder / PAGE).write_text(adapt_page(manifest, table), encoding="utf-8")
        write_manifest(folder, manifest.model_copy(update={"files": file_hashes(folder)}))
        put(folder, wish.out)
    return Adapted(open_model(wish.out), tuple(refused), table)


def _check_model(model: Model, out: Path) -> People:
    """Refuse what cannot be adapted; the people of its training."""
    check_output(out, MANIFEST, "model")
    if out.resolve() == model.folder.resolve():
        raise ModelError(f"{out} is the model to adapt, which is kept; name another folder with --out.")
    if model.manifest.adaptation is not None:
        raise ModelError(
            f"model {model.folder} was adapted already, from {model.manifest.adaptation.parent[:12]}; adapt that one, "
            "with all patients of today."
        )
    if model.manifest.people is None:
        raise ModelError(
            f"model {model.folder} keeps no digests of its training patients, so none can be recognised; export its "
            "run again."
        )
    return model.manifest.people


def _check_enough(grade: Int64, when: str) -> None:
    """Refuse too few patients of a grade, and say what more would bring."""
    counts = [int((grade == c).sum()) for c in range(len(CLASSES))]
    if min(counts) >= FEWEST:
        return
    found = " and ".join(f"{count} {name}" for count, name in zip(counts, CLASSES, strict=True))
    share = float(np.clip(counts[1] / max(sum(counts), 1), 0.05, 0.95))
    raise CohortError(
        f"there are {found} patients{when}, and adapting takes {FEWEST} of each grade. At this mix about"
        f" {patients_for_ratio(share, 1.5)} patients give a 95 % interval of O:E of 0.67 to 1.5, and about"
        f" {patients_for_coverage(RATE, 0.1, share)} one of the coverage of +- 10 %."
    )


def _local(cohort: Cohort, seen: Sequence[Looked]) -> _Local:
    grades = dict(zip(cohort.patients, cohort.grades, strict=True))
    labelled = [one for one in seen if one.patient in grades]
    grade = np.array([grades[one.patient] for one in labelled], np.int64)
    return _Local(labelled, list(seen), np.array([one.logit for one in labelled]), grade)


def _fitted(model: Model, salt: str, local: _Local, refused: int, rule: str | None) -> Manifest:
    """The parent's manifest with everything that is learned at the site."""
    parent = model.manifest
    rule = rule or parent.calibration.rule
    calibration, conformal, update = update_calibration(local.logit, local.grade, parent.calibration, rule)
    space = read_space(model)
    familiarity, whose = _familiarity(model, local.everyone)
    old = answered(local.logit, local.grade, parent.calibration, parent.conformal)
    strange = count_unfamiliar(parent.out_of_distribution, space, local.everyone), len(local.everyone)
    out_of_sample = cross_fitted(local.logit, local.grade, parent.calibration, rule)
    strange_after = _unfamiliar_out_of_sample(model, local.everyone)
    adaptation = Adaptation(
        parent=model.fingerprint,
        parent_created=parent.created,
        patients=calibration.cases,
        unlabelled=len(local.everyone) - len(local.labelled),
        refused=refused,
        shift=update.shift,
        slope=update.slope,
        distance="local",
        bounds=whose,
        before=fit_of(local.logit, local.grade, old, strange),
        after=fit_of(local.logit, local.grade, out_of_sample, strange_after),
        people=People(salt=salt, digests=salted(salt, {one.content for one in local.labelled})),
        notes=_notes(len(local.everyone), whose, strange_after is not None),
    )
    probability = calibration.probability(local.logit)
    return parent.model_copy(
        update={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "calibration": calibration,
            "conformal": conformal,
            "out_of_distribution": familiarity,
            "reference": {
                name: tuple(sorted(probability[local.grade == c].tolist())) for c, name in enumerate(CLASSES)
            },
            "baseline": baseline(space, [Seen(one.features, one.statistics, one.content) for one in local.everyone]),
            "adaptation": adaptation,
            "partial": {},
        }
    )


def _familiarity(model: Model, patients: Sequence[Looked]) -> tuple[Familiarity, Literal["local", "parent"]]:
    """Limits from local patients, in the parent's feature space; ranges of image statistics take 39 patients."""
    parent = model.manifest.out_of_distribution
    distances = read_space(model).distance(np.stack([one.features for one in patients]))
    limit, by = tolerance_limit(distances, DISTANCE_RATE, DISTANCE_CONFIDENCE)
    names = tuple(patients[0].statistics)
    table = np.array([[one.statistics[name] for name in names] for one in patients])
    bounds = fit_bounds(table, names, IMAGE_RATE)
    changed = {"distance": limit, "distance_by": by, "validation": len(patients)} | (
        {"bounds": bounds} if bounds else {}
    )
    return parent.model_copy(update=changed), "local" if bounds else "parent"


def _unfamiliar_out_of_sample(model: Model, patients: Sequence[Looked]) -> tuple[int, int] | None:
    """How many are unfamiliar by limits learned from the others, of how many; None where these are too few."""
    space, count = read_space(model), 0
    for number in range(FOLDS):
        others = [one for place, one in enumerate(patients) if place % FOLDS != number]
        local, whose = _familiarity(model, others)
        if whose == "parent":
            return None
        count += count_unfamiliar(local, space, patients[number::FOLDS])
    return count, len(patients)


def _notes(patients: int, bounds: str, judged: bool) -> tuple[str, ...]:
    if bounds != "local":
        return (
            f"Ranges of the image statistics take 39 patients, and there were {patients}: the parent's ranges count, so"
            " a scanner unlike the training's still makes patients unfamiliar. Unlabelled patients count too.",
        )
    if not judged:
        return (
            "How many the adapted model calls unfamiliar is not known: ranges take 39 patients, and of"
            f" {patients} a tenth is kept apart at a time.",
        )
    return ()


def _section(manifest: Manifest) -> str:
    text = (files("deploy.life") / "adapted.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701 - Markdown
    environment.filters["limits"] = limits
    return environment.from_string(text).render(
        found=manifest.adaptation, calibration=manifest.calibration, conformal=manifest.conformal
    )
