"""A finished training, read once for the export: its tables, its patients, and what the manifest says of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from deploy.model.folder import FORMAT, library_versions
from deploy.model.manifest import Manifest, ModelSpec, NetworkRecord, OutputShapes, ParityReport, TrainingSummary
from toolkit.config import ExportSettings
from toolkit.data.patients import CLASSES, MODALITIES, Cohort
from toolkit.data.scan import PREPROCESSING
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.conformal import fit_conformal
from toolkit.evaluation.familiarity import Familiarity
from toolkit.evaluation.metrics import Metrics, evaluate
from toolkit.evaluation.sites import site_only
from toolkit.evaluation.stability import best_epoch
from toolkit.training.runs.folder import fold_runs
from toolkit.training.runs.run import EpochRow, Run, ValidationTable

_LIBRARIES = ("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass(frozen=True)
class Trained:
    """What the export needs of a run.

    Attributes:
        run: where it is.
        table: the validation patients' logits.
        calibration: probability and threshold.
        metrics: on the validation patients.
        histories: the epochs of the run, or of each fold.
        training: who was trained on.
        validation: who was validated on.
        known: who gives the space of familiar features; in a run of folds, the first fold's training patients.
        fresh: who gives its limit: patients that did not shape that space.
    """

    run: Run
    table: ValidationTable
    calibration: Calibration
    metrics: Metrics
    histories: tuple[list[EpochRow], ...]
    training: Cohort
    validation: Cohort
    known: Cohort
    fresh: Cohort

    @property
    def folds(self) -> int:
        """Of a cross-validation; 0 for an ordinary run."""
        return self.run.settings.data.folds * self.run.settings.data.repeats


def read_trained(run: Run) -> Trained:
    """Read a run.

    Raises:
        RunError: it lacks a file, or one is broken.
    """
    folds = fold_runs(run)
    table, calibration = run.validation(), run.calibration()
    metrics = evaluate(table.grades, calibration.probability(table.logit), calibration.threshold)
    training, validation = run.training_patients(), run.validation_patients()
    known, fresh = (folds[0].training_patients(), folds[0].validation_patients()) if folds else (training, validation)
    histories = tuple(one.history() for one in folds or [run])
    return Trained(run, table, calibration, metrics, histories, training, validation, known, fresh)


def network_record(trained: Trained) -> NetworkRecord:
    """How the network is built."""
    network = trained.run.settings.network
    return NetworkRecord(
        arch=network.arch,
        depth=network.depth,
        stem_stride=network.stem_stride,
        cosine_head=trained.run.settings.training.loss == "ldam",
        norm=network.norm,
        members=max(1, trained.folds),
    )


def model_spec(trained: Trained, settings: ExportSettings, outputs: OutputShapes) -> ModelSpec:
    """What the runtimes need to know; no file is listed yet."""
    chosen = trained.run.settings
    return ModelSpec(
        format=FORMAT,
        files={},
        modalities=MODALITIES,
        classes=CLASSES,
        grid=chosen.data.grid,
        preprocessing=PREPROCESSING,
        max_batch=settings.max_batch,
        network=network_record(trained),
        outputs=outputs,
        calibration=trained.calibration,
    )


def whole_manifest(trained: Trained, spec: ModelSpec, parity: ParityReport, familiarity: Familiarity) -> Manifest:
    """The manifest of a model that passed the gate."""
    table = trained.table
    probability = trained.calibration.probability(table.logit)
    return Manifest(
        **{name: getattr(spec, name) for name in ModelSpec.model_fields},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        conformal=fit_conformal(probability, table.grades),
        out_of_distribution=familiarity,
        reference={name: tuple(sorted(probability[table.grades == c].tolist())) for c, name in enumerate(CLASSES)},
        training=_summary(trained),
        parity=parity,
        versions=library_versions(_LIBRARIES),
    )


def _summary(trained: Trained) -> TrainingSummary:
    best = None if trained.folds else best_epoch(trained.histories[0])
    everyone = trained.training.joined(trained.validation)
    site = site_only(everyone.grades, everyone.sites)
    return TrainingSummary(
        strategy=trained.run.settings.strategy,
        labels=trained.run.labels(),
        site=site.auc if site else None,
        epochs=max(len(history) for history in trained.histories),
        best_epoch=best.epoch if best else None,
        training=_per_class(trained.training),
        validation=_per_class(trained.validation),
        auc=trained.metrics.auc,
        synthetic=trained.run.synthetic,
    )


def _per_class(cohort: Cohort) -> dict[str, int]:
    count = Counter(cohort.grades)
    return {name: count[index] for index, name in enumerate(CLASSES)}
