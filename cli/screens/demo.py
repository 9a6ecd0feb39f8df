"""The steps of `grade demo`: what a user would type, on patients that are made up."""

from __future__ import annotations

from pathlib import Path

from cli.console import bar, figure, say, stages, table
from cli.screens.demo_folder import owned
from cli.screens.predict import say_plan
from cli.screens.report import show_run
from cli.screens.train import TrainingScreen
from cli.tables import show_model
from deploy.evaluate import EVALUATION, evaluate_model
from deploy.export.export import export_run
from deploy.model.folder import Model
from deploy.model.manifest import SYNTHETIC
from deploy.predict.pipeline import PredictOptions
from deploy.results.record import Record
from deploy.runtime import Choice
from toolkit.config import PredictSettings, Settings
from toolkit.data.labels import read_cohort
from toolkit.data.patients import CLASSES
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.training.start import start_training

PATIENTS, HELD_OUT = 100, 40
DIFFICULTY = 0.0  # the best possible grader reaches AUC 0.986
SPACING = 2.0  # mm; quick to write


def make_patients(out: Path, seed: int) -> None:
    """A cohort to train on, and other patients for the end."""
    for name, patients, own_seed in (("cohort", PATIENTS, 2 * seed), ("held-out", HELD_OUT, 2 * seed + 1)):
        settings = PhantomSettings(patients, own_seed, DIFFICULTY, hgg_share=0.6, spacing=SPACING)
        with owned(out).writing(name), bar(f"making patients: {name}", patients) as done:
            write_cohort(out / name, settings, done)
        say(f"{patients} synthetic patients in {out / name}")


def train_and_export(out: Path, settings: Settings) -> Model:
    """`grade train` and `grade export`."""
    with owned(out).writing("runs", "cache"), TrainingScreen() as screen:
        run = start_training(settings, out / "runs" / "demo", screen)
    show_run(run)
    with owned(out).writing("model"), stages() as on_stage:
        model = export_run(run, out / "model", settings.export, None, on_stage).model
    show_model(model)
    return model


def held_out(out: Path, model: Model) -> None:
    """`grade evaluate` on patients that the training has not seen."""
    cohort = read_cohort(out / "held-out", None)
    records: list[Record] = []

    options = PredictOptions(out / "results", Choice(), PredictSettings())
    with owned(out).writing("results", "model"), bar("grading", len(cohort)) as done:

        def keep(record: Record) -> None:
            records.append(record)
            done()

        result = evaluate_model(model, cohort, options, say_plan, keep)
    rows = [
        (
            record.patient,
            CLASSES[known],
            record.grade or "refused",
            figure(record.probability),
            record.verdict or "",
            record.reason or record.explanation,
        )
        for known, record in zip(cohort.grades, records, strict=True)
    ]
    table("Held-out patients", ("patient", "made as", "graded", "P(HGG)", "verdict", ""), rows)
    auc, metrics = result.metrics.auc, result.metrics
    say(
        f"held-out AUC {figure(auc.value)} ({figure(auc.low)} to {figure(auc.high)}), sensitivity "
        f"{figure(metrics.sensitivity.value)}, specificity {figure(metrics.specificity.value)}"
    )
    say(f"pages: {out / 'runs/demo/report.html'} and {out / 'results' / EVALUATION}; model: {out / 'model'}")
    say(f"The model was {SYNTHETIC}. Train on your own cohort: grade init, then grade train and grade export.")
