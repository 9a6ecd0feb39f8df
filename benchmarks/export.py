"""Where the time of an export goes, for a full-size network, and another checkout's in turn.

    python -m benchmarks.export WORK [--other CHECKOUT] [--turns N]

WORK keeps the cohort of phantoms and the run between calls. A checkout exports in a process of its own: seconds of wall
and of CPU (user and system, all threads) from the start of Python to the end, for each stage that it names. On a shared
machine, CPU seconds say more than the wall. `probability apart` is how far the two models' answers to four patients
are apart.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import arguments, report
from toolkit.errors import ModelError
from toolkit.training.runs.folder import open_run

CHILD = """
import inspect, json, re, sys, time, tomllib
import tomli_w
began = time.time() - float(sys.argv[3])
from pathlib import Path
from toolkit.config import ExportSettings
from toolkit.errors import SettingsError
try:
    from deploy.export.export import export_run
    from toolkit.training.runs.folder import open_run
except ImportError:  # a checkout from before
    from deploy.export import export_run
    from toolkit.training.runs import open_run
marks = [("imports", began, time.process_time())]
def stage(text):
    name = re.sub(r" [0-9]+ of [0-9]+$", "s", text)
    if name != marks[-1][0]:
        marks.append((name, time.time() - float(sys.argv[3]), time.process_time()))
marks[0] = ("imports", 0.0, 0.0)
stage("begin")
folder = Path(sys.argv[1])
while True:
    try:
        run = open_run(folder)
        break
    except SettingsError as error:  # settings that a checkout from before does not know yet
        if not (unknown := re.search(r"unknown setting '([a-z0-9_.]+)'", str(error))):
            raise
        *rooms, name = unknown[1].split(".")
        whole = room = tomllib.loads((folder / "settings.toml").read_text())
        for one in rooms:
            room = room[one]
        del room[name]
        (folder / "settings.toml").write_text(tomli_w.dumps(whole))
settings = ExportSettings(max_batch=8)
extra = (None,) if "engine" in inspect.signature(export_run).parameters else ()
export_run(run, Path(sys.argv[2]), settings, *extra, stage)
marks.append(("", time.time() - float(sys.argv[3]), time.process_time()))
print(json.dumps([[a[0], b[1] - a[1], b[2] - a[2]] for a, b in zip(marks, marks[1:])]))
"""

MADE = """
import sys
from pathlib import Path
import numpy as np, torch
from toolkit.config import DataSettings, ExportSettings, Settings
from toolkit.data.labels import read_cohort
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.data.scan import read_scan
from toolkit.data.cohort.split import Split
from toolkit.evaluation.calibration import Calibration
from toolkit.training.runs.run import EpochRow, ValidationTable
from toolkit.training.runs.folder import create_run
work = Path(sys.argv[1])
write_cohort(work / "cohort", PhantomSettings(8, 1, 0.2, 0.5, 1.5), lambda *_: None)
cohort = read_cohort(work / "cohort", None)
validation, training = (cohort.select(list(range(first, 8, 2))) for first in (0, 1))
run = create_run(work / "runs", "full", Settings(), Split(training, validation))
torch.manual_seed(0)
network = run.build_network()
scans = torch.from_numpy(np.stack([read_scan(one, run.settings.data.grid).data for one in validation.patients]))
network.train()
with torch.no_grad():
    for _ in range(8):
        network(scans[:2])
run.save_best(network.eval())
run.write_history([EpochRow(epoch=1, train_loss=0.7, train_auc=0.5, val_loss=0.7, val_auc=0.5, lr=1e-4, head_lr=2e-4,
                            seconds=1, images_per_second=1)])
with torch.inference_mode():
    logits = np.concatenate([network(scan[None]).logits.double().numpy() for scan in scans])
run.write_validation(ValidationTable(tuple(one.id for one in validation.patients), validation.grade_array, logits))
middle = float(np.median(logits[:, 1] - logits[:, 0]))
calibration = Calibration(method="platt", a=1, b=-middle, threshold=0.5, rule="youden", cases={"LGG": 2, "HGG": 2})
run.write("calibration.json", calibration.model_dump_json())
"""


def exported(checkout: Path, run: Path, out: Path) -> list[list[Any]]:
    """Stages of one export: name, wall seconds, CPU seconds."""
    import time

    command = [sys.executable, "-c", CHILD, str(run), str(out), str(time.time())]
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def apart(run: Path, one: Path, other: Path) -> float:
    """The largest difference of the probability between two models on the run's validation patients."""
    from deploy.model.folder import open_model
    from deploy.runtime import Choice
    from deploy.runtimes.open import open_runtime
    from deploy.selftest import probability
    from toolkit.data.scan import read_scan

    models = [open_model(folder) for folder in (one, other)]
    runtimes = [open_runtime(model, Choice("onnx", "cpu", "fp32")) for model in models]
    differences = []
    for patient in open_run(run).validation_patients().patients:
        scan = read_scan(patient, models[0].manifest.grid).data[None]
        p, q = (
            probability(runtime.infer(scan), model.manifest.calibration)[0]
            for runtime, model in zip(runtimes, models, strict=True)
        )
        differences.append(abs(float(p - q)))
    return max(differences)


def main() -> None:
    """Measure and report."""
    given = arguments(
        "Where the time of an export goes.",
        ("work", {"type": Path, "help": "folder for cohort, run and models"}),
        ("--other", {"type": Path, "help": "another checkout, measured in turn"}),
        ("--turns", {"type": int, "default": 1}),
    )
    here, work = Path(__file__).resolve().parent.parent, given.work.resolve()
    run = work / "runs" / "full"
    if not run.is_dir():
        subprocess.run([sys.executable, "-c", MADE, str(work)], cwd=here, check=True)
    kinds = {"new": here} | ({"other": given.other.resolve()} if given.other else {})
    found: dict[str, list[list[list[Any]]]] = {kind: [] for kind in kinds}
    for _ in range(given.turns):
        for kind, checkout in kinds.items():
            copy = work / "runs" / kind
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run, copy)
            found[kind].append(exported(checkout, copy, work / kind))
    rows: list[tuple[Any, ...]] = []
    for kind, turns in found.items():
        totals = [sum(stage[column] for stage in turn) for turn in turns for column in (1, 2)]
        rows.append((kind, "all", median(totals[::2]), median(totals[1::2])))
        for number, (name, *_) in enumerate(turns[0]):
            wall, cpu = (median(turn[number][column] for turn in turns) for column in (1, 2))
            rows.append((kind, name, wall, cpu))
    if given.other:
        try:
            rows.append(("both", "probability apart", apart(run, work / "new", work / "other"), 0.0))
        except ModelError as reason:  # of another recipe: what the checkout from before wrote is not opened
            print(f"The answers are not compared: {reason}")
    patients = len(open_run(run).validation_patients().patients)
    report(
        f"Export of a full-size network, {patients} validation patients",
        ("code", "stage", "wall s", "CPU s"),
        rows,
        given.out,
    )


if __name__ == "__main__":
    main()
