"""What networks say of heads that came from a scanner, against the same heads without a scanner in between.

    python -m tests.campaign.registration 200 MODEL --keep HEADS     # brings the heads in, once
    python -m benchmarks.heads HEADS RUN_OR_MODEL... --out heads.json

A run is answered by torch, on a GPU if there is one, and through its own calibration and threshold; a model by ONNX
Runtime. Each head is there in several ways, a folder each; a row compares one with `direct`, the head as drawn. In
order, each with one thing more: `turned`, in the pose that was found; `masked`, under the mask that was found;
`ingested`, as it was brought in. `true-mask` is that under the true mask. `tests.campaign.factors` makes others. Runs
NAME-sN are told together as NAME as well.
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

FOUND, DIRECT = "head.json", "direct"
CLOSE = 0.05  # of P(HGG): what a hospital's way may change
COLUMNS = (
    "network", "way", "heads", "d logit", "sd", "correlation", "median |dP|", "95 %", "within 0.05", "flips", "AUC",
)  # fmt: skip


class Answered(NamedTuple):
    """What one network says of all heads: logits, HGG minus LGG, by way, and its calibration."""

    logits: dict[str, Float64]
    calibration: Calibration


def compared(name: str, way: str, of: Sequence[Answered], grades: Float64) -> tuple[Any, ...]:
    """A row: a way against the head as drawn, for one network or those of several seeds."""
    both = [(one.logits[DIRECT], one.logits[way]) for one in of]
    moved = np.concatenate([found - direct for direct, found in both])
    change, flips = [], 0
    for one, logits in zip(of, both, strict=True):
        direct, found = (one.calibration.probability(logit) for logit in logits)
        change.append(np.abs(found - direct))
        flips += int(np.sum((direct >= one.calibration.threshold) != (found >= one.calibration.threshold)))
    apart = np.concatenate(change)
    correlation = np.mean([np.corrcoef(direct, found)[0, 1] for direct, found in both])
    return (
        name, way, len(apart), float(np.median(moved)), float(moved.std()), float(correlation),
        float(np.median(apart)), float(np.percentile(apart, 95)), float(np.mean(apart <= CLOSE)), flips,
        float(np.mean([auc(grades, found) for _, found in both])),
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


def read_heads(folders: Sequence[Path], ways: Sequence[str], grid: Grid) -> dict[str, torch.Tensor]:
    """The scans of all heads by way, float16 (N, 4, X, Y, Z)."""
    with ThreadPoolExecutor(most_readers()) as pool:
        return {
            way: torch.stack(list(pool.map(lambda of: _scan(of, grid), [folder / way for folder in folders])))
            for way in ways
        }


def main() -> None:
    """Print what each network says."""
    given = arguments(
        "What networks say of heads that came from a scanner.",
        ("heads", {"type": Path, "help": "folder that `tests.campaign.registration --keep` filled"}),
        ("networks", {"type": Path, "nargs": "+", "help": "run and model folders"}),
    )
    kept = {file.parent: json.loads(file.read_text("utf-8")) for file in sorted(given.heads.glob(f"*/{FOUND}"))}
    heads = {folder: of for folder, of in kept.items() if (folder / DIRECT).is_dir()}  # the others were refused
    grades = np.array([of["grade"] for of in heads.values()])
    ways = sorted((of.name for of in next(iter(heads)).iterdir() if of.is_dir()), key=lambda way: (way != DIRECT, way))
    found: dict[str, Answered] = {}
    grids: dict[str, Any] = {}
    for folder in given.networks:
        grid = _grid(folder)
        if str(grid) not in grids:
            grids = {str(grid): read_heads(list(heads), ways, grid)}
        found[folder.resolve().name if folder.is_symlink() else folder.name] = answered(folder, grids[str(grid)])
    arms: dict[str, list[str]] = {}
    for name in found:
        arms.setdefault(name.rpartition("-s")[0] or name, []).append(name)
    asked = {**{name: [name] for name in found}, **{arm: names for arm, names in arms.items() if len(names) > 1}}
    rows = [
        compared(arm, way, [found[name] for name in names], grades) for arm, names in asked.items() for way in ways[1:]
    ]
    report(f"{len(heads)} heads", COLUMNS, rows, None)
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
