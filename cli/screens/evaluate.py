"""What `grade evaluate --json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.evaluate import Control, Evaluation
from toolkit.data.patients import Cohort


def facts(cohort: Cohort, result: Evaluation, folder: Path, control: Control | None) -> dict[str, Any]:
    """An evaluation as JSON knows it.

    Args:
        cohort: who was graded.
        result: what came of it.
        folder: of the results.
        control: what came of the control experiment; None without one.
    """
    alone = result.sites.alone
    return {
        "patients": len(cohort),
        "refused": {record.patient: record.reason for record in result.graded.refused},
        "metrics": result.metrics.model_dump(mode="json"),
        "sites": None if alone is None else result.sites._asdict() | {"alone": alone._asdict()},
        "control": None if control is None else control.facts,
        "results": str(folder),
    }
