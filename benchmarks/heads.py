"""What networks say of heads that came from a scanner, against the same heads without a scanner in between.

    python -m tests.campaign.registration 200 MODEL --keep HEADS     # brings the heads in, once
    python -m benchmarks.heads HEADS RUN_OR_MODEL... --out heads.json

A run is answered by torch, on a GPU if there is one, and through its own calibration and threshold; a model by ONNX
Runtime. Each head is there five times: `direct`, as drawn; `turned`, in the pose that was found; `masked`, under the
mask that was found; `ingested`, as it was brought in; `true-mask`, that under the true mask. So the change of the logit
falls into three: pose (turned - direct), mask (masked - turned) and scan (ingested - masked), which is slices, noise,
alignment and sampling. Runs NAME-sN are told together as NAME as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import arguments, machine, report
from benchmarks.fresh import answers
from deploy.model.folder import MANIFEST, open_model
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from toolkit.arrays import Float64
from toolkit.config import Grid
from toolkit.data.patients import Patient
from toolkit.data.scan import read_scan
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.metrics import auc
from toolkit.machine import most_readers
from toolkit.training.runs.folder import open_run

FOUND = "head.json"
WAYS = ("direct", "turned", "masked", "ingested", "true-mask")
STEPS = {"pose": ("direct", "turned"), "mask": ("turned", "masked"), "scan": ("masked", "ingested")}
CLOSE = 0.05  # of P(HGG): what a hospital's way may change
COLUMNS = (
    "network", "heads", "median |dP|", "95 %", "worst", "within 0.05", "flips", "d logit", "sd", "correlation",
    "AUC direct", "AUC ingested", *STEPS, "true mask", "sd pose", "sd mask", "sd scan",
)  # fmt: skip


class Answered(NamedTuple):
    """What one network says of all heads: logits, HGG minus LGG, by way, and its calibration."""

    logits: dict[str, Float64]
    calibration: Calibration


def figures(name: str, of: Sequence[Answered], grades: Float64) -> tuple[Any, ...]:
    """A row: one network, or those of several seeds, each on all heads."""
    both = [[one.calibration.probability(one.logits[way]) for way in ("direct", "ingested")] for one in of]
    change = np.concatenate([np.abs(ingested - direct) for direct, ingested in both])
    flips = sum(
        int(np.sum((direct >= one.calibration.threshold) != (ingested >= one.calibration.threshold)))
        for one, (direct, ingested) in zip(of, both, strict=True)
    )
    steps = {step: np.concatenate([one.logits[b] - one.logits[a] for one in of]) for step, (a, b) in STEPS.items()}
    whole = np.concatenate([one.logits["ingested"] - one.logits["direct"] for one in of])
    true_mask = np.concatenate([one.logits["true-mask"] - one.logits["turned"] for one in of])
    correlation = np.mean([np.corrcoef(one.logits["direct"], one.logits["ingested"])[0, 1] for one in of])
    aucs = [float(np.mean([auc(grades, one.logits[way]) for one in of])) for way in ("direct", "ingested")]
    return (
        name, len(change), float(np.median(change)), float(np.percentile(change, 95)), float(change.max()),
        float(np.mean(change <= CLOSE)), flips, float(np.median(whole)), float(whole.std()), float(correlation), *aucs,
        *(float(np.median(values)) for values in steps.values()), float(np.median(true_mask)),
        *(float(values.std()) for values in steps.values()),
    )  # fmt: skip


def answered(folder: Path, scans: dict[str, torch.Tensor]) -> Answered:
    """The logits of a run or a model on the scans (N, 4, X, Y, Z) of each way."""
    if not (folder / MANIFEST).is_file():
        run = open_run(folder)
        return Answered({way: answers(run, of) for way, of in scans.items()}, run.calibration())
    model = open_model(folder)
    runtime = open_runtime(model, Choice("onnx"))
    found = {}
    for way, of in scans.items():
        logits = np.concatenate([runtime.infer(one[None].float().numpy()).logits for one in of])
        found[way] = np.asarray(logits[:, 1] - logits[:, 0], np.float64)
    return Answered(found, model.manifest.calibration)


def read_heads(folders: Sequence[Path], grid: Grid) -> dict[str, torch.Tensor]:
    """The scans of all heads by way, float16 (N, 4, X, Y, Z)."""
    with ThreadPoolExecutor(most_readers()) as pool:
        return {
            way: torch.stack(list(pool.map(lambda of: _scan(of, grid), [folder / way for folder in folders])))
            for way in WAYS
        }


def main() -> None:
    """Print what each network says."""
    given = arguments(
        "What networks say of heads that came from a scanner.",
        ("heads", {"type": Path, "help": "folder that `tests.campaign.registration --keep` filled"}),
        ("networks", {"type": Path, "nargs": "+", "help": "run and model folders"}),
    )
    kept = {file.parent: json.loads(file.read_text("utf-8")) for file in sorted(given.heads.glob(f"*/{FOUND}"))}
    heads = {folder: of for folder, of in kept.items() if (folder / WAYS[-1]).is_dir()}
    grades = np.array([of["grade"] for of in heads.values()])
    found: dict[str, Answered] = {}
    grids: dict[str, Any] = {}
    for folder in given.networks:
        grid = _grid(folder)
        if str(grid) not in grids:
            grids = {str(grid): read_heads(list(heads), grid)}
        found[folder.resolve().name if folder.is_symlink() else folder.name] = answered(folder, grids[str(grid)])
    arms: dict[str, list[str]] = {}
    for name in found:
        arms.setdefault(name.rpartition("-s")[0] or name, []).append(name)
    rows = [figures(name, [one], grades) for name, one in found.items()]
    rows += [figures(arm, [found[name] for name in names], grades) for arm, names in arms.items() if len(names) > 1]
    columns = ("", *(row[0] for row in rows))
    report(f"{len(heads)} heads", columns, list(zip(COLUMNS[1:], *(row[1:] for row in rows), strict=True)), None)
    if given.out:
        logits = {
            name: {way: np.round(of, 4).tolist() for way, of in one.logits.items()} for name, one in found.items()
        }
        content = {
            "machine": machine(),
            "rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
            "heads": list(kept.values()),
            "logits": logits,
        }
        given.out.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _grid(folder: Path) -> Grid:
    return open_model(folder).manifest.grid if (folder / MANIFEST).is_file() else open_run(folder).settings.data.grid


def _scan(folder: Path, grid: Grid) -> torch.Tensor:
    return torch.from_numpy(read_scan(Patient("x", folder), grid).data).half()


if __name__ == "__main__":
    main()
