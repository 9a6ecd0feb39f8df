"""What a model has to show at a site, figure by figure."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.bench import Bench
from deploy.model.manifest import Manifest
from deploy.model.origin import Fit
from deploy.verify import Check as Finding
from toolkit.config import CommissionSettings
from toolkit.evaluation.local.acceptance import Check, Outcome, judge
from toolkit.evaluation.local.precision import proportion

UNKNOWN = (None, None, None)


@dataclass(frozen=True)
class Familiar:
    """How many graded patients were called unfamiliar, and why.

    Attributes:
        graded: patients.
        unfamiliar: of them.
        by_distance: of them.
        by_images: of them.
        outside: image statistic -> patients outside its range.
    """

    graded: int
    unfamiliar: int
    by_distance: int
    by_images: int
    outside: dict[str, int]


def checks_of(
    manifest: Manifest,
    settings: CommissionSettings,
    machine: tuple[tuple[Finding, ...], Bench, float],
    patients: tuple[int, Familiar, Fit | None],
) -> tuple[Check, ...]:
    """Every figure, judged.

    Args:
        manifest: of the model; it holds the card's claims.
        settings: what is acceptable.
        machine: findings of the model folder, the runtimes measured, and the median seconds of a patient.
        patients: how many, how familiar, and how well answers fit known grades.
    """
    findings, measured, seconds = machine
    count, familiar, fit = patients
    refused = proportion(count - familiar.graded, count)
    checks = [
        _folder(findings),
        _runtimes(measured),
        _speed(seconds, settings.seconds),
        judge("refused patients", refused, 0, settings.refused),
        _unfamiliar(familiar, settings.unfamiliar),
        judge("AUC", fit.auc if fit else UNKNOWN, settings.auc, 1),
        _claim(manifest, fit, settings.auc_loss),
    ]
    if manifest.conformal.missing or not manifest.out_of_distribution.known:
        checks.append(_word("verdicts", "restrict", "the model has too few validation patients for every verdict"))
    for name, key in (
        ("calibration intercept", "intercept"),
        ("calibration slope", "slope"),
        ("O:E", "observed_expected"),
    ):
        checks.append(judge(name, getattr(fit, key) if fit else UNKNOWN, *getattr(settings, key)))
    checks += [
        judge(f"{grade} whose set holds it", fit.coverage[grade] if fit else UNKNOWN, settings.coverage, 1)
        for grade in manifest.classes
    ]
    return tuple(checks)


def claimed_auc(manifest: Manifest) -> float | None:
    """What the card says: on the validation patients, or after an adaptation on those of the site."""
    return manifest.adaptation.after.auc[0] if manifest.adaptation else manifest.training.auc[0]


def _claim(manifest: Manifest, fit: Fit | None, loss: float) -> Check:
    claim = claimed_auc(manifest)
    if claim is None:
        return _word("AUC against the card", "restrict", "the card has no AUC")
    return judge(f"AUC against the card's {claim:.3f}", fit.auc if fit else UNKNOWN, max(claim - loss, 0), 1)


def _unfamiliar(familiar: Familiar, most: float) -> Check:
    """The share of unfamiliar patients, and what they are unfamiliar by."""
    check = judge("unfamiliar patients", proportion(familiar.unfamiliar, familiar.graded), 0, most)
    if check.outcome == "pass":
        return check
    by = [f"{name.replace('_', ' ')} in {count}" for name, count in list(familiar.outside.items())[:3]]
    by += [f"feature distance in {familiar.by_distance}"] if familiar.by_distance else []
    named = f"; unlike the training's scans by {', '.join(by)} of {familiar.graded}" if by else ""
    return check._replace(reason=check.reason + named)


def _folder(findings: tuple[Finding, ...]) -> Check:
    wrong = [finding for finding in findings if not finding.passed]
    if wrong:
        return _word("model folder", "fail", "; ".join(f"{one.name}: {one.sentence}" for one in wrong))
    return _word("model folder", "pass", "as exported: hashes, parity record, limits and self-test")


def _runtimes(measured: Bench) -> Check:
    good = [f"{one.runtime} {one.precision} {one.device}" for one in measured.measured if one.parity == "passed"]
    bad = [
        f"{one.runtime} {one.precision} {one.device}: {one.parity}"
        for one in measured.measured
        if one.parity != "passed"
    ]
    if not good:
        return _word("runtimes", "fail", "none decides like the exported model; " + "; ".join(bad))
    if bad:
        return _word("runtimes", "restrict", f"only {', '.join(good)} may be used; " + "; ".join(bad))
    return _word("runtimes", "pass", f"{', '.join(good)} decide like the exported model")


def _speed(seconds: float, most: float) -> Check:
    outcome: Outcome = "pass" if seconds <= most else "restrict"
    return Check("seconds of a patient", (seconds, None, None), 0, most, outcome, "median of reading and inference")


def _word(name: str, outcome: Outcome, reason: str) -> Check:
    return Check(
        name, UNKNOWN, 0, 0, outcome, reason, {"pass": "passed", "restrict": "in part", "fail": "FAILED"}[outcome]
    )
