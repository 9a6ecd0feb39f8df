"""The page of a study. Each number on it names its place in `study.json` (attribute `data-json`)."""

from __future__ import annotations

from functools import partial

from toolkit.data.layout import PHANTOMS
from toolkit.evaluation.pages.drawing import svg
from toolkit.evaluation.pages.page import number, render
from toolkit.evaluation.pages.pictures import draw_runs
from toolkit.evaluation.study import Study

_WIDE = (6.4, 4.4)  # inches


def study_report(name: str, study: Study) -> str:
    """One self-contained HTML page.

    Args:
        name: of the study.
        study: at least one run.
    """
    curves = {run.name: (run.arm, run.val_auc) for run in study.runs}
    losses = {run.name: (run.arm, run.train_loss) for run in study.runs}
    means = "; ".join(f"{arm.name} {number(arm.auc.mean)}" for arm in study.arms)
    pictures = [
        (
            "Validation AUC of all runs",
            svg(
                partial(draw_runs, curves=curves, label="validation AUC"),
                f"Validation AUC per epoch, one line a run. Mean of the best epochs: {means}.",
                _WIDE,
            ),
        ),
        (
            "Training loss of all runs",
            svg(
                partial(draw_runs, curves=losses, label="training loss"),
                "Training loss per epoch, one line a run; losses of different kinds are not to be compared.",
                _WIDE,
            ),
        ),
    ]
    return render(
        "study.html",
        kind="Stability study",
        name=name,
        subtitle=f"{len(study.runs)} runs of {len(study.arms)} strategies",
        summary=study.headline,
        notes=study.notes,
        footing="stability study",
        synthetic=PHANTOMS in study.notes,
        study=study,
        pictures=pictures,
    )
