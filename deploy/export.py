"""Run -> model folder. It appears whole and proven, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import jinja2
from safetensors.torch import save

from deploy.familiarise import learn_familiarity
from deploy.graph import write_onnx
from deploy.manifest import Manifest, NetworkRecord, OutputShapes, ParityReport, TrainingSummary
from deploy.model import (
    CARD,
    FAMILIARITY,
    FORMAT,
    MANIFEST,
    ONNX,
    WEIGHTS,
    Model,
    file_hashes,
    library_versions,
    open_model,
    write_manifest,
)
from deploy.parity import check_parity, choose_patients, run_selftest, write_selftest
from deploy.runtimes import Array, Choice, open_runtime
from toolkit.config import ExportSettings, Grid
from toolkit.data.patients import CLASSES, MODALITIES, Cohort
from toolkit.data.scan import PREPROCESSING, read_scan
from toolkit.errors import ModelError, PatientRefused
from toolkit.evaluation.conformal import fit_conformal
from toolkit.evaluation.metrics import Metrics, evaluate
from toolkit.evaluation.sites import SUSPECT, site_only
from toolkit.evaluation.stability import best_epoch
from toolkit.files import building, check_output, put
from toolkit.training.ensemble import Ensemble
from toolkit.training.folds import load_network
from toolkit.training.network import GradeNet, fold_batchnorm
from toolkit.training.run import Run
from toolkit.training.runs import fold_runs

_LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


def export_run(
    run: Run,
    out: Path,
    settings: ExportSettings,
    on_stage: Callable[[str], None],
    add: Callable[[Model], Sequence[Choice]] = lambda _: (),
) -> Model:
    """Export the best network of a run, prove that it decides like the trained one, and put it at `out`.

    Everything is built in a hidden folder beside `out`. A model that was at `out` stays there until the new one has
    passed the parity gate, and for good if it does not pass.

    Args:
        run: a training that ended; of a run of folds, the networks become one ensemble.
        out: the model folder.
        settings: largest batch.
        on_stage: called with what begins, in a few words.
        add: called with the model before it is proven, to put engines into its folder; gives the runtimes that can run
            here and have to pass the gate too.

    Raises:
        RunError: the run lacks a file.
        ModelError: the gate found a difference, a validation patient is gone, or `out` holds something else.
    """
    check_output(out, MANIFEST, "model")
    grid, cohort, metrics, network = run.settings.data.grid, run.validation_patients(), _metrics(run), load_network(run)
    with building(out, "model") as folder:
        # save_file would make a file that only its owner may read.
        (folder / WEIGHTS).write_bytes(save({name: x.contiguous() for name, x in network.state_dict().items()}))
        outputs = _write_graphs(network, grid, folder, on_stage)
        manifest = _manifest(run, settings, outputs, metrics)
        write_manifest(folder, manifest.model_copy(update={"files": file_hashes(folder)}))
        write_selftest(folder, open_runtime(open_model(folder), Choice("torch", "cpu")), grid)
        manifest = manifest.model_copy(update={"files": file_hashes(folder)})
        write_manifest(folder, manifest)
        built = open_model(folder)
        report = _prove(built, cohort, add(built), on_stage)
        # The same precision as the limits of a probability: fp16 moves a distance by far less than patients differ.
        runtime = open_runtime(open_model(folder), Choice("onnx", "auto", "fp32"))
        # Limits need patients that did not shape the space they are measured in: in a run of folds, the first fold's.
        one = next(iter(fold_runs(run)), run)
        familiarity, space = learn_familiarity(
            runtime, grid, one.training_patients(), one.validation_patients(), on_stage
        )
        space.save(folder / FAMILIARITY)
        manifest = manifest.model_copy(update={"parity": report, "out_of_distribution": familiarity})
        (folder / CARD).write_text(_card(manifest, metrics, run), encoding="utf-8")
        write_manifest(folder, manifest.model_copy(update={"files": file_hashes(folder)}))
        put(folder, out)
    return open_model(out)


def _write_graphs(
    network: GradeNet | Ensemble, grid: Grid, folder: Path, on_stage: Callable[[str], None]
) -> OutputShapes:
    folded = fold_batchnorm(network)
    on_stage("ONNX graph in fp32")
    shapes = write_onnx(folded, grid, "fp32", folder / ONNX["fp32"])
    on_stage("ONNX graph in fp16")
    write_onnx(folded, grid, "fp16", folder / ONNX["fp16"])
    return shapes


def _prove(model: Model, cohort: Cohort, more: Sequence[Choice], on_stage: Callable[[str], None]) -> ParityReport:
    """Gate and self-test; fp16 runs where it will run in earnest if this machine has a GPU, else on the CPU."""
    reference = open_runtime(model, Choice("torch", "cpu"))
    candidates = [
        open_runtime(model, Choice("onnx", "cpu", "fp32")),
        open_runtime(model, Choice("onnx", "auto", "fp16")),
        *(open_runtime(model, choice) for choice in more),
    ]
    chosen = choose_patients(cohort)

    def scans() -> Iterator[tuple[str, Array]]:
        for number, patient in enumerate(chosen.patients, start=1):
            on_stage(f"parity: patient {number} of {len(chosen)}")
            try:
                yield patient.id, read_scan(patient, model.manifest.grid).data
            except PatientRefused as reason:
                raise ModelError(
                    f"the parity gate needs validation patient {patient.id}, which is refused: {reason};"
                    f" its folder was {patient.folder}."
                ) from None
        on_stage("parity: extreme scans and batches")

    report = check_parity(model, reference, candidates, scans(), len(cohort))
    on_stage("self-test")
    for runtime in candidates:
        run_selftest(model, runtime)
    return report


def _manifest(run: Run, settings: ExportSettings, outputs: OutputShapes, metrics: Metrics) -> Manifest:
    network, folds = run.settings.network, fold_runs(run)
    histories = [one.history() for one in folds or [run]]
    table, calibration = run.validation(), run.calibration()
    probability = calibration.probability(table.logit)
    best = None if folds else best_epoch(histories[0])
    training, validation = run.training_patients(), run.validation_patients()
    everyone = training.joined(validation)
    site = site_only(everyone.grades, everyone.sites)
    summary = TrainingSummary(
        strategy=run.settings.strategy,
        labels=run.labels(),
        site=site.auc if site else None,
        epochs=max(len(history) for history in histories),
        best_epoch=best.epoch if best else None,
        training=_per_class(training),
        validation=_per_class(validation),
        auc=metrics.auc,
    )
    return Manifest(
        format=FORMAT,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={},
        modalities=MODALITIES,
        classes=CLASSES,
        grid=run.settings.data.grid,
        preprocessing=PREPROCESSING,
        max_batch=settings.max_batch,
        network=NetworkRecord(
            depth=network.depth,
            stem_stride=network.stem_stride,
            cosine_head=run.settings.training.loss == "ldam",
            norm=network.norm,
            members=max(1, len(folds)),
        ),
        outputs=outputs,
        calibration=calibration,
        conformal=fit_conformal(probability, table.grades),
        reference={name: tuple(sorted(probability[table.grades == c].tolist())) for c, name in enumerate(CLASSES)},
        training=summary,
        parity=None,
        versions=library_versions(_LIBRARIES),
    )


def _metrics(run: Run) -> Metrics:
    table, calibration = run.validation(), run.calibration()
    return evaluate(table.grades, calibration.probability(table.logit), calibration.threshold)


def _per_class(cohort: Cohort) -> dict[str, int]:
    count = Counter(cohort.grades)
    return {name: count[index] for index, name in enumerate(CLASSES)}


def _card(manifest: Manifest, metrics: Metrics, run: Run) -> str:
    text = (files("deploy") / "card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701 - Markdown
    environment.filters["interval"] = _interval
    return environment.from_string(text).render(
        manifest=manifest, metrics=metrics, settings=run.settings, cohort=_cohort_name(run), suspect=SUSPECT
    )


def _cohort_name(run: Run) -> str:
    """The folder's name without its path: a card is shown around."""
    return run.settings.data.cohort.name if run.settings.data.cohort else "unknown"


def _interval(interval: tuple[float | None, float | None, float | None]) -> str:
    value, low, high = interval
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
