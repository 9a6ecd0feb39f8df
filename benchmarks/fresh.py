"""The networks of a study on patients that had no part in it: what a validation AUC is worth, and which arm is better.

A study's own validation patients choose its epochs, and there are few of them. Of phantoms there are as many as one
likes. `--masked` puts the brain's median in place of each tumour: what is left of the AUC has nothing to do with it.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.common import arguments, report
from toolkit.arrays import Float64
from toolkit.config import LabelTable
from toolkit.data.control import mask_tumour
from toolkit.data.labels import read_cohort
from toolkit.data.patients import Cohort
from toolkit.data.scan import read_scan
from toolkit.evaluation.comparison import Answers, compare_arms
from toolkit.evaluation.metrics import auc
from toolkit.evaluation.stability import best_epoch, stability
from toolkit.machine import most_readers
from toolkit.training.loop.compute import choose_compute
from toolkit.training.runs.folder import open_run
from toolkit.training.runs.run import Run

BATCH = 8


@torch.inference_mode()
def answers(run: Run, scans: torch.Tensor) -> Float64:
    """(N,) logits, HGG minus LGG, of a run's best network on scans (N, 4, X, Y, Z)."""
    compute = choose_compute(run.settings.training)
    network = compute.place(run.load_best()).eval()
    found = []
    for part in torch.split(scans, BATCH):
        with compute.autocast():
            logits = network(part.to(compute.device, torch.float32).to(memory_format=compute.layout)).logits
        found.append((logits[:, 1] - logits[:, 0]).double().cpu().numpy())
    return np.concatenate(found)


def look(run: Run, cohort: Cohort, scans: torch.Tensor) -> dict[str, Any]:
    """What a run's own patients and fresh ones say of it."""
    history, logits = run.history(), answers(run, scans)
    spread, _, _, peak = stability(history)
    best = best_epoch(history)
    sites = np.array([site or "" for site in cohort.sites])
    within = {
        site: auc(cohort.grade_array[sites == site], logits[sites == site])
        for site in sorted(set(sites.tolist()))
        if len(set(sites.tolist())) > 1
    }
    return {
        "run": run.folder.name,
        "validation": best.val_auc if best else None,
        "fresh": auc(cohort.grade_array, logits),
        "within": within,
        "spread": spread.value,
        "peak": peak.value,
        "epochs": len(history),
        "best": best.epoch if best else None,
        "logits": [round(float(x), 4) for x in logits],
    }


def pairs(found: list[dict[str, Any]], cohort: Cohort) -> list[tuple[str, str, float, float, float, float]]:
    """Each arm less the first strategy on fresh patients, over the seeds that both have."""
    arms: dict[str, dict[str, Answers]] = {}
    names = tuple(patient.id for patient in cohort.patients)
    for one in found:
        arm, _, seed = one["run"].rpartition("-s")
        answer = Answers(patients=names, grade=tuple(cohort.grades), logit=tuple(one["logits"]))
        arms.setdefault(arm, {})[seed] = answer
    first = "stable" if "stable" in arms else next(iter(arms))
    rows = []
    for arm, of_seed in arms.items():
        common = sorted(set(of_seed) & set(arms[first]))
        pair = compare_arms(arm, first, {name: [arms[name][seed] for seed in common] for name in (arm, first)})
        if arm != first and pair:
            rows.append((arm, first, pair.splits, pair.difference, pair.low, pair.high))
    return rows


def main() -> None:
    """Print what fresh patients say of each run and arm."""
    given = arguments(
        "The networks of a study on patients that had no part in it.",
        ("study", {"type": Path}),
        ("cohort", {"type": Path}),
        ("--labels", {"type": Path, "default": None, "help": "table of grades and sites"}),
        ("--masked", {"action": "store_true", "help": "without the tumours"}),
    )
    folders = sorted(folder for folder in (given.study / "runs").iterdir() if folder.is_dir())
    runs = [open_run(folder) for folder in folders if not folder.is_symlink()]  # such as `latest`
    runs = [run for run in runs if run.ended]
    cohort = read_cohort(given.cohort, LabelTable(file=given.labels) if given.labels else None)
    grid, edit = runs[0].settings.data.grid, mask_tumour if given.masked else None
    with ThreadPoolExecutor(most_readers()) as pool:
        read = pool.map(
            lambda patient: torch.from_numpy(read_scan(patient, grid, edit=edit).data).half(), cohort.patients
        )
        scans = torch.stack(list(read))  # (N, 4, X, Y, Z)
    found = [look(run, cohort, scans) for run in runs]
    rows = [
        (one["run"], one["validation"], one["fresh"], *(one["within"].get(site) for site in sorted(found[0]["within"])))
        for one in found
    ]
    columns = ("run", "validation AUC", "fresh AUC", *(f"inside {site}" for site in sorted(found[0]["within"])))
    report(f"{len(cohort)} fresh patients{', masked' if given.masked else ''}", columns, rows, given.out)
    report("Arms on fresh patients", ("arm", "less", "seeds", "difference", "low", "high"), pairs(found, cohort), None)
    known = [one for one in found if None not in (one["validation"], one["spread"], one["peak"])]
    optimism = [one["validation"] - one["fresh"] for one in known]
    for measure in ("spread", "peak") if len(known) > 2 else ():
        rho = spearmanr([one[measure] for one in known], optimism).statistic
        print(f"Spearman's rho of the {measure} with validation less fresh AUC, {len(known)} runs: {rho:.2f}")
    if given.out:
        given.out.with_suffix(".runs.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
