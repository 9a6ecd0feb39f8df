"""The page of an acceptance test: verdict and reasons first, then every figure."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from deploy.life.acceptance import claimed_auc
from deploy.life.commission import Commission
from deploy.model.folder import Model
from toolkit.errors import GradeError
from toolkit.evaluation.local.acceptance import Check
from toolkit.evaluation.local.precision import proportion
from toolkit.evaluation.pages.sheet import Head, Section, limits, sheet
from toolkit.files import write_file

PAGE = "commission.html"
RECORD = "commission.json"
WORDS = {"pass": "✓ passed", "restrict": "– not shown", "fail": "✗ failed"}
_FOUND = {
    "pass": "Pass: the model did here what was asked.",
    "restrict": "Restrict: nothing failed, but not everything was shown.",
    "do not use": "Do not use: the model failed here.",
}
_ADVICE = {
    "pass": "Every answer still needs a human reader; watch the model with grade monitor.",
    "restrict": "Use it for trial only, collect the outcome of every patient, and test again.",
    "do not use": "",
}


def write_commission(folder: Path, model: Model, found: Commission) -> None:
    """Write the page and the record into the results folder."""
    write_file(folder / RECORD, _json(facts(model, found)) + "\n", GradeError)
    write_file(folder / PAGE, commission_page(model, found), GradeError)


def commission_page(model: Model, found: Commission) -> str:
    """The page."""
    people = len(found.records)
    head = Head(
        "Acceptance test",
        f"Model {model.short} on {people} patients of this site",
        f"{found.familiar.graded} graded, {len(found.refused)} refused, {found.graded_known} with a known grade",
        advice(model, found),
        [*(f"{c.name}{_figure(c)}: {c.reason}." for c in found.checks if c.outcome == "fail"), *found.notes],
        model.manifest.training.synthetic,
    )
    return sheet(
        head, [checks_of(found), claims(model, found), familiar(model, found), runtimes(found), refused(found)]
    )


def advice(model: Model, found: Commission) -> str:
    """What was found and what to do; a model of phantoms is not for patients, whatever it showed."""
    return f"{_FOUND[found.verdict]} {model.manifest.training.origin or _ADVICE[found.verdict]}".strip()


def checks_of(found: Commission) -> Section:
    """Every judged figure, what failed first."""
    order = ("fail", "restrict", "pass")
    rows = [
        (check.name, WORDS[check.outcome], check.text or limits(check.found), _range(check), check.reason)
        for check in sorted(found.checks, key=lambda check: order.index(check.outcome))
    ]
    return Section("Checks", ("", "outcome", "found (95 % interval)", "acceptable", ""), rows)


def claims(model: Model, found: Commission) -> Section:
    """The card's figures next to those of this site."""
    manifest, fit = model.manifest, found.fit
    unknown = (None, None, None)
    before = manifest.adaptation.after.auc if manifest.adaptation else manifest.training.auc
    rate = 1 - manifest.conformal.rate
    rows = [("AUC", limits(before), limits(fit.auc if fit else unknown))]
    rows += [
        (name, perfect, limits(getattr(fit, key) if fit else unknown))
        for name, perfect, key in (
            ("calibration intercept", "0", "intercept"),
            ("calibration slope", "1", "slope"),
            ("O:E", "1", "observed_expected"),
        )
    ]
    rows += [
        (f"{grade} whose set holds it", f"{rate:.0%} or more", limits(fit.coverage[grade] if fit else unknown, 1, True))
        for grade in manifest.classes
    ]
    text = [] if claimed_auc(manifest) is not None else ["The card has no AUC."]
    return Section("The card's claims, and this site", ("", "card", "here (95 % interval)"), rows, text=text)


def familiar(model: Model, found: Commission) -> Section:
    """How many patients are unlike the training's, and by what."""
    limits_of, seen = model.manifest.out_of_distribution, found.familiar
    rows = [
        ("unfamiliar", "", _share(seen.unfamiliar, seen.graded)),
        ("by feature distance", f"{limits_of.distance_rate:.1%} at most", _share(seen.by_distance, seen.graded)),
        ("by image statistics", f"{limits_of.image_rate:.1%} on average", _share(seen.by_images, seen.graded)),
    ]
    rows += [
        (name.replace("_", " "), "", _share(count, seen.graded)) for name, count in list(seen.outside.items())[:10]
    ]
    return Section("Familiarity", ("", "promised", "here (95 % interval)"), rows)


def runtimes(found: Commission) -> Section:
    """Each runtime of this machine: parity and speed."""
    rows = [
        (f"{one.runtime} {one.precision} {one.device}", one.parity, f"{one.speeds[0].median:.0f} ms")
        for one in found.bench.measured
    ]
    rows += [(name, reason, "") for name, reason in found.bench.missing.items()]
    return Section("Runtimes on this machine", ("", "self-test and parity", "one scan"), rows)


def refused(found: Commission) -> Section:
    """Why patients were refused; names are in the results."""
    kinds = Counter(record.reason for record in found.refused)
    rows = [(reason, str(count)) for reason, count in kinds.most_common(20)]
    return Section("Refused patients", ("reason", "patients"), rows, text=[] if rows else ["None."])


def facts(model: Model, found: Commission) -> dict[str, Any]:
    """An acceptance test as JSON knows it."""
    return {
        "verdict": found.verdict,
        "model": model.fingerprint,
        "patients": len(found.records),
        "graded": found.familiar.graded,
        "known_grades": found.graded_known,
        "refused": {record.patient: record.reason for record in found.refused},
        "checks": [check._asdict() for check in found.checks],
        "fit": found.fit.model_dump(mode="json") if found.fit else None,
        "unfamiliar": {
            "by_distance": found.familiar.by_distance,
            "by_images": found.familiar.by_images,
            "outside": found.familiar.outside,
        },
        "runtimes": [one.model_dump(mode="json") for one in found.bench.measured],
        "missing_runtimes": found.bench.missing,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False)


def _share(count: int, of: int) -> str:
    return f"{count} of {of}: {limits(proportion(count, of), 1, True)}"


def _range(check: Check) -> str:
    return "" if check.text else f"{check.low:.3g} to {check.high:.3g}"


def _figure(check: Check) -> str:
    return "" if check.text else f", {limits(check.found)} where {check.low:.3g} to {check.high:.3g} is acceptable"
