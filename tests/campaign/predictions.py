"""`grade predict` killed 20 times and on full disks of 10 sizes: nobody lost, twice, or without an audit line.

Each command runs in a fork of this process, which has loaded ONNX Runtime and computed nothing.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from deploy.results import audit, journal
from tests.campaign.runs import grade, write_cohort
from toolkit.training.network import backbones
from toolkit.training.runs import outcome

LOADED = (
    "cli.screens.predict",
    "cli.commands.verify",
    "deploy.runtimes.onnx",
    "deploy.report.pages",
    "sklearn.metrics",
)
OUT = Path("out")
PREDICT = ("predict", "cohort", "--model", "model", "--out", str(OUT), "--device", "cpu", "--workers", "2")
INSTANTS = 8  # kills at instants that are spread over a whole call
# (file, which of its lines, share of the line that is written): kills at a write; 1 is a whole line
WRITES = [(name, line, share) for name in ("audit", "journal") for line in (1, 5, 12) for share in (0.5, 1.0)]
SIZES = (4, 8, 12, 16, 20, 24, 32, 40, 64, 128)  # KiB of a disk


def killed_after(seconds: float) -> Callable[[], None]:
    """Let the system end this process after a time: nothing in it can run then."""

    def arm() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return arm


def killed_at(name: str, line: int, share: float) -> Callable[[], None]:
    """Let this process kill itself when a part of a line is written."""

    def arm() -> None:
        module: Any = {"audit": audit, "journal": journal}[name]
        append, left = module.append_line, line

        def appending(stream: Any, content: bytes) -> int:
            nonlocal left
            left -= 1
            if left:
                return append(stream, content)  # type: ignore[no-any-return]
            stream.seek(0, os.SEEK_END)
            stream.write(content[: int(len(content) * share)])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        module.append_line = appending

    return arm


def answers() -> dict[str, tuple[str, ...]]:
    """What the table holds of each patient."""
    with (OUT / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found = {row["patient"]: (row["grade"], row["probability"], row["verdict"]) for row in rows}
    return found if len(found) == len(rows) else {"": ("somebody is there twice",)}


def resumed(wanted: dict[str, tuple[str, ...]]) -> str:
    """Resume; what is wrong with the results then."""
    ended = grade(*PREDICT, "--report", "--resume")
    if ended.code != 0 or not ended.clean:
        return f"--resume ended with {ended.code}: {ended.text[-300:]}"
    if answers() != wanted:
        return f"the table holds {answers()}"
    content = json.loads((OUT / "predictions.json").read_text())
    audited = {json.loads(line)["inputs"] for line in (OUT / "audit.jsonl").read_text().splitlines()}
    if missing := [record["patient"] for record in content["patients"] if record["inputs"] not in audited]:
        return f"without an audit line: {missing}"
    if len(list((OUT / "patients").glob("*.html"))) != len(wanted):
        return "a page is missing"
    ended = grade("verify", "--audit", str(OUT / "audit.jsonl"))
    return "" if ended.code == 0 else f"verify --audit: {ended.text[-300:]}"


def on_a_full_disk(kib: int, wanted: dict[str, tuple[str, ...]]) -> str:
    """Grade onto a disk of so many KiB, make it large, resume; what is wrong."""
    OUT.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(OUT)], check=True)
    try:
        ended = grade(*PREDICT, "--report")
        if not ended.clean or ended.code not in {0, 1}:
            return f"predict ended with {ended.code}: {ended.text[-300:]}"
        if ended.code == 1 and "No space left" not in ended.text:
            return f"the disk is not named: {ended.text[-300:]}"
        subprocess.run(["mount", "-o", "remount,size=64m", str(OUT)], check=True)
        return resumed(wanted)
    finally:
        subprocess.run(["umount", str(OUT)], check=True)


def main() -> int:
    """Print what was tried and what failed."""
    backbones.PLANES = [4, 8, 16, 32]  # type: ignore[attr-defined]
    outcome.training_report = lambda record: f"page of {record.name}"  # type: ignore[attr-defined]  # no pictures
    for name in LOADED:
        import_module(name)
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="grade-campaign-") as folder:
        os.chdir(folder)
        try:
            return _attack()
        finally:
            os.chdir(before)


def _attack() -> int:
    write_cohort()
    for words in (("train", "--name", "a"), ("export", "runs/a"), (*PREDICT, "--report")):
        start = time.monotonic()
        ended = grade(*words)
        if ended.code:
            print(f"could not prepare: {ended}")
            return 1
    seconds, wanted = time.monotonic() - start, answers()
    failed, hit = 0, 0
    kills = [
        (f"after {part}/{INSTANTS} of a call", killed_after(seconds * part / INSTANTS)) for part in range(INSTANTS)
    ]
    kills[0] = ("after 0.1 s", killed_after(0.1))
    kills += [
        (f"when {share:.0%} of line {line} of the {name} is written", killed_at(name, line, share))
        for name, line, share in WRITES
    ]
    for title, before in kills:
        shutil.rmtree(OUT, ignore_errors=True)
        ended = grade(*PREDICT, "--report", before=before)
        hit += ended.code < 0
        sentence = f"the kill came too late: {ended}" if ended.code > 0 else resumed(wanted)
        failed += _told(f"killed {title}", sentence)
    disks = 0
    for kib in SIZES if _may_mount() else ():
        shutil.rmtree(OUT, ignore_errors=True)
        failed += _told(f"a disk of {kib} KiB", on_a_full_disk(kib, wanted))
        disks += 1
    print(f"{len(kills)} kills of grade predict, of which {hit} hit it, and {disks} full disks: {failed} wrong")
    return int(failed > 0)


def _told(title: str, sentence: str) -> bool:
    print(f"{'WRONG' if sentence else 'held'}  {title}  {sentence}", flush=True)
    return bool(sentence)


def _may_mount() -> bool:
    OUT.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(OUT)], check=False).returncode
    if done:
        print("full disks: not tried, since this machine does not let us mount a small one")
        return False
    subprocess.run(["umount", str(OUT)], check=True)
    shutil.rmtree(OUT)
    return True
