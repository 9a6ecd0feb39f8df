"""What an adaptation changed, as tables: for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.model.manifest import Manifest
from deploy.model.origin import Adaptation, Fit
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.conformal import Conformal
from toolkit.evaluation.local.precision import Needed
from toolkit.evaluation.pages.sheet import Head, Section, limits, sheet

PAGE = "adaptation.html"


def adapt_page(manifest: Manifest, needed: Sequence[Needed]) -> str:
    """The page of an adapted model."""
    found = manifest.adaptation
    if found is None:
        return ""
    head = Head(
        "Adaptation",
        "A model adapted to a site",
        f"from model {found.parent[:12]}",
        f"{_people(found)}; {change(found)}. Sign the model before it is used.",
        [*found.notes, *manifest.calibration.notes],
        manifest.training.synthetic,
    )
    return sheet(head, [change_of(found), learned(manifest.calibration, manifest.conformal, found), precision(needed)])


def change(found: Adaptation) -> str:
    """What became of the calibration, in words."""
    return f"the log odds of HGG move by {found.shift:+.2f}, the slope is {found.slope:.2f} times the parent's"


def change_of(found: Adaptation) -> Section:
    """Every figure before and after, on the same patients."""
    rows = [(name, _cell(found.before, key), _cell(found.after, key)) for key, name in _FIGURES.items()]
    rows += [
        (
            f"{grade} in its set (90 % promised)",
            limits(found.before.coverage[grade]),
            limits(found.after.coverage[grade]),
        )
        for grade in found.after.coverage
    ]
    rows.append(("Called unfamiliar", limits(found.before.unfamiliar), limits(found.after.unfamiliar)))
    return Section("Before and after", ("", "parent", "adapted, out of sample"), rows)


def learned(calibration: Calibration, conformal: Conformal, found: Adaptation) -> Section:
    """What the new model says."""
    low, high = calibration.threshold_limits or (None, None)
    rows = [
        ("Change of the calibration", change(found)),
        ("P(HGG)", f"sigmoid({calibration.a:.4g} x logit + {calibration.b:.4g})"),
        (f"Threshold, rule {calibration.rule}", limits((calibration.threshold, low, high))),
        ("HGG is possible from", limits((conformal.hgg_from, None, None))),
        ("LGG is possible up to", limits((conformal.lgg_to, None, None))),
        ("Limit of the feature distance", found.distance),
        ("Ranges of the image statistics", found.bounds),
    ]
    return Section("What was learned", ("", ""), rows)


def precision(needed: Sequence[Needed]) -> Section:
    """How many patients more precision takes."""
    rows = [(row.figure, row.width, str(row.patients)) for row in needed]
    return Section("Patients for a 95 % interval, at this mix of grades", ("figure", "interval", "patients"), rows)


_FIGURES = {
    "auc": "AUC",
    "observed_expected": "O:E (1 is perfect)",
    "intercept": "Calibration intercept (0 is perfect)",
    "slope": "Calibration slope (1 is perfect)",
    "sensitivity": "Sensitivity for HGG",
    "specificity": "Specificity",
}


def _cell(fit: Fit, key: str) -> str:
    return limits(getattr(fit, key))


def _people(found: Adaptation) -> str:
    graded = " and ".join(f"{count} {name}" for name, count in found.patients.items())
    return f"{graded} patients{f', {found.unlabelled} without a grade' if found.unlabelled else ''}"
