"""What a missing modality costs: `python -m benchmarks.modality WORK`.

One network is trained with dropped modalities and exported for patients who may lack T1 or T2; two others are
trained that never see T1, or T2. All answer the same new phantoms, whole and without the modality.
"""

from __future__ import annotations

from math import floor
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom

from benchmarks.common import arguments, keep
from deploy.export.export import export_run
from deploy.export.partial import without
from deploy.model.folder import open_model
from deploy.predict.reader import Wanted, reader
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from toolkit.config import load_settings
from toolkit.data.cohort.split import Split
from toolkit.data.labels import read_cohort
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.evaluation.clinical import delong
from toolkit.training.loop.scans import TrainingData
from toolkit.training.loop.train import train
from toolkit.training.runs.folder import create_run
from toolkit.training.watch import Quiet

SETTINGS = (
    "data.spacing=6.0",
    "data.shape=[24, 32, 24]",
    "network.depth=10",
    "training.epochs=10",
    "training.min_epochs=10",
    "training.warmup_epochs=1",
    "training.ema=0",
    "training.batch_size=8",
    "training.accumulation=1",
    "training.lr=5e-4",
    "training.head_lr=1e-3",
)
DROPPED = ('data.optional=["t1", "t2"]', "training.augment.modality_dropout=0.4")


def scans_of(patients, grid, optional=()):
    """Scans, in the patients' order."""
    found = []
    with reader(patients, Wanted(grid, optional=optional), 2) as reads:
        while (read := reads.take()) is not None:
            found.append(read.scan.data)
    return found


def blanked(scans, name):
    """Copies without a modality."""
    found = [scan.copy() for scan in scans]
    for scan in found:
        scan[MODALITIES.index(name)] = 0
    return found


def trained(home, name, overrides, halves, scans):
    """A run, trained on scans in memory."""
    settings = load_settings(None, "stable", (*SETTINGS, *overrides))
    run = create_run(home / "runs", name, settings, Split(*halves))
    one, other = (TrainingData(half, part) for half, part in zip(halves, scans, strict=True))
    train(run, one, other, Quiet())
    return run


def logits_of(network, scans):
    """Logits (N,) of HGG minus LGG."""
    with torch.inference_mode():
        found = [network(torch.from_numpy(scan[None])).logits[0].double() for scan in scans]
    return np.array([float(pair[1] - pair[0]) for pair in found])


def covered(probability, grade, conformal):
    """Share of each grade's patients whose set holds it, and where that of a sound model may lie."""
    rows = {}
    for index, name in enumerate(CLASSES):
        of = probability[grade == index]
        learned = conformal.cases[name]
        lost = floor(conformal.rate * (learned + 1) + 1e-9)
        ends = betabinom(len(of), learned + 1 - lost, lost).ppf([0.025, 0.975]) / len(of) if lost else (0.0, 1.0)
        held = np.mean([name in conformal.grades(float(p)) for p in of])
        rows[name] = [round(float(held), 3), *(round(float(end), 3) for end in ends)]
    return rows


def main() -> None:
    given = arguments(
        __doc__,
        ("work", {"type": Path, "help": "folder for phantoms and runs"}),
        ("--patients", {"type": int, "default": 160}),
        ("--new", {"type": int, "default": 400}),
    )
    torch.set_num_threads(2)
    for name, count, seed in (("cohort", given.patients, 40), ("new", given.new, 41)):
        if not (given.work / name).exists():
            write_cohort(given.work / name, PhantomSettings(count, seed, 0.0, 0.5, 4.0), lambda _: None)
    cohort, new = (read_cohort(given.work / name, None) for name in ("cohort", "new"))
    grid = load_settings(None, "stable", SETTINGS).data.grid
    cut = [place % 5 < 3 for place in range(len(cohort))]
    halves = [cohort.select([place for place, first in enumerate(cut) if first is part]) for part in (True, False)]
    scans = [scans_of(half.patients, grid) for half in halves]
    whole_run = trained(given.work, "dropped", DROPPED, halves, scans)
    folder = given.work / "model"
    export_run(whole_run, folder, whole_run.settings.export, None, lambda _: None)
    model = open_model(folder)
    runtime = open_runtime(model, Choice("onnx", "cpu", "fp32"))
    seen = scans_of(new.patients, grid)
    grade, found = new.grade_array, {}
    for missing in ("", "t1", "t2"):
        if missing:
            with without(new.patients, missing) as patients:
                shown = scans_of(patients, grid, (missing,))
        else:
            shown = seen
        part = model.manifest.partial[missing] if missing else model.manifest
        logit = np.array([float(runtime.infer(scan[None]).logit[0]) for scan in shown])
        row = {
            "AUC": delong(logit[grade == 0], logit[grade == 1]),
            "covered, from, to": covered(part.calibration.probability(logit), grade, part.conformal),
        }
        if missing:
            alone = trained(given.work, f"no-{missing}", (), halves, [blanked(half, missing) for half in scans])
            logit = logits_of(alone.load_best().eval(), shown)
            row["AUC of a network that never saw it"] = delong(logit[grade == 0], logit[grade == 1])
        found[missing or "whole"] = row
    found["patients"] = {
        "training": len(halves[0]),
        "validation": len(halves[1]),
        "new": dict(zip(CLASSES, np.bincount(grade, minlength=2).tolist(), strict=True)),
    }
    keep(found, given.out)


if __name__ == "__main__":
    main()
