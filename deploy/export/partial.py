"""What counts for patients who lack a modality, learned at export."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from deploy.export.trained import Trained
from deploy.lanes import readers_here, some_later
from deploy.model.partial import Partial
from deploy.predict.reader import Wanted, reader
from deploy.runtime import Array, RuntimeOutputs
from toolkit.arrays import Float32
from toolkit.config import Grid
from toolkit.data.patients import CLASSES, Patient, match_modalities
from toolkit.data.scan import Scan
from toolkit.errors import ModelError
from toolkit.evaluation.calibration_fit import fit_calibration
from toolkit.evaluation.clinical import delong
from toolkit.evaluation.conformal import fit_conformal
from toolkit.evaluation.familiarity import DISTANCE_CONFIDENCE, DISTANCE_RATE, Familiarity, FeatureSpace
from toolkit.evaluation.familiarity_fit import tolerance_limit

Answer: TypeAlias = Callable[[Array], Future[RuntimeOutputs]]


def learn_partial(
    trained: Trained, answer: Answer, whole: tuple[Familiarity, FeatureSpace], on_stage: Callable[[str], None]
) -> dict[str, Partial]:
    """One for each modality that a patient may lack.

    Args:
        trained: whose validation patients are read again, without the modality.
        answer: of a runtime in fp32, to a batch.
        whole: limits and space with all modalities; ranges of the image statistics that are left stay.
        on_stage: called with what begins.

    Raises:
        ModelError: a patient is refused without the modality.
    """
    return {name: _one(trained, name, answer, whole, on_stage) for name in trained.run.settings.data.optional}


def _one(
    trained: Trained,
    missing: str,
    answer: Answer,
    whole: tuple[Familiarity, FeatureSpace],
    on_stage: Callable[[str], None],
) -> Partial:
    cohort, settings = trained.validation, trained.run.settings
    logits: list[float] = []
    features: list[Float32] = []
    names: set[str] = set()
    with without(cohort.patients, missing) as patients:
        scans = _reads(patients, missing, settings.data.grid)
        for scan, asked in some_later((scan, answer(scan.data[None])) for scan in scans):
            on_stage(f"without {missing}: patient {len(logits) + 1} of {len(cohort)}")
            outputs = asked.result()
            logits.append(float(outputs.logit[0]))
            features.append(outputs.features[0])
            names |= set(scan.statistics)
    logit, grade = np.array(logits), cohort.grade_array
    calibration = fit_calibration(logit, grade, settings.calibration)
    probability = calibration.probability(logit)
    known, space = whole
    limit, by = tolerance_limit(space.distance(np.stack(features)), DISTANCE_RATE, DISTANCE_CONFIDENCE)
    bounds = tuple(bound for bound in known.bounds if bound.name in names)
    table = trained.table
    return Partial(
        calibration=calibration,
        conformal=fit_conformal(probability, grade),
        familiarity=known.model_copy(update={"distance": limit, "distance_by": by, "bounds": bounds}),
        reference={name: tuple(sorted(probability[grade == c].tolist())) for c, name in enumerate(CLASSES)},
        auc=delong(logit[grade == 0], logit[grade == 1]),
        auc_whole=delong(table.logit[table.grades == 0], table.logit[table.grades == 1]),
    )


def _reads(patients: Sequence[Patient], missing: str, grid: Grid) -> Iterator[Scan]:
    wanted = Wanted(grid, None, (missing,))
    with threadpool_limits(1, user_api="blas"), reader(patients, wanted, readers_here()) as reads:
        while (read := reads.take()) is not None:
            if read.scan is None:
                raise ModelError(f"without {missing} patient {read.patient.id} is refused: {read.reason}.")
            yield read.scan


@contextmanager
def without(patients: Sequence[Patient], missing: str) -> Iterator[tuple[Patient, ...]]:
    """The same patients as folders of links to their other files, while the block lasts: read as prediction reads."""
    with tempfile.TemporaryDirectory() as home:
        found = []
        for number, patient in enumerate(patients):
            folder = Path(home) / str(number)
            folder.mkdir()
            for name, file in match_modalities(patient.folder).modalities.items():
                if name != missing:
                    (folder / file.name).symlink_to(file.absolute())
            found.append(Patient(patient.id, folder))
        yield tuple(found)
