"""Tables that several commands show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.console import figure, note, say, table

if TYPE_CHECKING:  # `grade info` answers at once, without scikit-learn
    from collections.abc import Sequence
    from pathlib import Path

    from deploy.evaluate import Control
    from deploy.model.folder import Model
    from deploy.model.manifest import Comparison, NetworkRecord
    from deploy.tensorrt.engine_files import EngineRecord
    from toolkit.errors import ModelError
    from toolkit.evaluation.metrics import Confusion, Metrics
    from toolkit.evaluation.pages.sheet import Section
    from toolkit.evaluation.sites import Sites

_SHOWN = {
    "auc": "AUC",
    "sensitivity": "sensitivity (HGG)",
    "specificity": "specificity (LGG)",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "calibration_intercept": "calibration intercept (0)",
    "calibration_slope": "calibration slope (1)",
}


def show_metrics(title: str, metrics: Metrics) -> None:
    """Values with their intervals, then what is undefined and why."""
    rows = []
    for name, label in _SHOWN.items():
        value, low, high = getattr(metrics, name)
        rows.append((label, figure(value), f"{figure(low)} to {figure(high)}"))
    table(title, ("", "value", "95 % interval"), rows)
    for sentence in metrics.notes:
        note(sentence)


def show_confusion(confusion: Confusion) -> None:
    """Patients by reference grade and decision."""
    rows = [
        ("HGG", str(confusion.true_hgg), str(confusion.missed_hgg)),
        ("LGG", str(confusion.false_hgg), str(confusion.true_lgg)),
    ]
    table("Reference grade and decision", ("reference", "graded HGG", "graded LGG"), rows)


def show_sites(sites: Sites, without: bool) -> None:
    """What the site alone gives away, and the AUC inside each site that has both grades."""
    if sites.alone is None:
        left = ", and --leave-one-site-out has none to leave out" if without else ""
        note(f"no site is known, so nothing can be said about scanner recognition{left}.")
        return
    say(sites.alone.sentence)
    if sites.alone.warning:
        note(sites.alone.warning)
    rows = []
    for name, (lgg, hgg) in sites.alone.sites.items():
        rest = (figure(sites.without.get(name)),) if without else ()
        rows.append((name, str(lgg), str(hgg), figure(sites.within.get(name)), *rest))
    table("Sites", ("site", "LGG", "HGG", "AUC inside", *(("AUC of all others",) if without else ())), rows)


def show_control(control: Control) -> None:
    """The AUC of a control experiment next to the plain one, over the same patients."""
    rows = [
        (label, figure(value), f"{figure(low)} to {figure(high)}")
        for label, (value, low, high) in (("as it is", control.plain), (control.name, control.changed))
    ]
    title = f"Control, {control.patients} patients: towards 0.5 if the tumour carried the grade"
    table(title, ("", "AUC", "95 % interval"), rows)


def show_model(model: Model) -> None:
    """What a model folder is."""
    from deploy.model.manifest import SYNTHETIC  # here, so that --help answers at once

    manifest = model.manifest
    calibration, summary, grid = manifest.calibration, manifest.training, manifest.grid
    value, low, high = summary.auc
    counts = ", ".join(f"{sum(part.values())} ({part['HGG']} HGG)" for part in (summary.training, summary.validation))
    rows = [
        ("network", f"{_network(manifest.network)}, largest batch {manifest.max_batch}"),
        (
            "grid",
            f"{' x '.join(map(str, grid.shape))} at {grid.spacing:g} mm, channels {', '.join(manifest.modalities)}",
        ),
        (
            "trained",
            f"strategy {summary.strategy}, best of {summary.epochs} epochs: {summary.best_epoch or 'one per fold'}",
        ),
        ("patients", f"training, validation: {counts}"),
        *((("origin", SYNTHETIC),) if summary.synthetic else ()),
        ("validation AUC", f"{figure(value)} ({figure(low)} to {figure(high)})"),
        ("threshold", f"{calibration.threshold:.4f} {calibration.decided}, calibration {calibration.method}"),
        *(("parity", _comparison(comparison)) for comparison in manifest.parity.comparisons),
    ]
    table(f"Model {model.folder}, fingerprint {model.fingerprint[:12]}", ("", ""), rows)


def show_engines(engines: Sequence[tuple[Path, EngineRecord | ModelError]]) -> None:
    """The engines of a model: for which card, how much of them is half precision, whether they were compared."""
    rows = []
    for path, record in engines:
        if isinstance(record, Exception):
            rows.append((path.stem, "", "", str(record)))
        else:
            card = record.gpu or f"cards of {', '.join(record.compute_capabilities)}"
            half = f"{record.half} of {record.convolutions}"
            rows.append((record.name, card, half, record.parity))
    table("Engines", ("", "for", "half precision", "parity"), rows)


def _network(record: NetworkRecord) -> str:
    name = f"3-D {record.title}"
    return name if record.members == 1 else f"{record.members} x {name}, averaged"


def _comparison(comparison: Comparison) -> str:
    overflow = f", {len(comparison.overflows)} extreme scans overflow" if comparison.overflows else ""
    return (
        f"{comparison.runtime}: largest |dp| {comparison.difference:.1e} (limit {comparison.limit:g}), "
        f"{comparison.flips} grade flips{overflow}"
    )


def show_section(section: Section) -> None:
    """A table of a page, in the terminal."""
    table(section.title, list(section.columns), [list(row) for row in section.rows])
