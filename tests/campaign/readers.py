"""`grade predict` with readers killed 20 times and the whole command 10 times: nobody lost, nobody twice, nothing left.

The model is that of `make demo`; the patients are small phantoms.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.box import children
from benchmarks.common import linked
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "demo" / "model"  # by `make demo`
PATIENCE = 600.0  # seconds for a command
SETTINGS = '[predict]\nreaders = "processes"\nworkers = 3\n'
READER = b"toolkit.data.workers.child"
LOST = "the process that read it ended twice"
SHARED = Path("/dev/shm")


class Scale(NamedTuple):
    """How many patients, kills of readers, kills of the command; voxels of the phantoms in mm."""

    patients: int = 60
    readers: int = 20
    parents: int = 10
    spacing: float = 2.0


def main(model: Path = MODEL, scale: Scale | None = None) -> int:
    """Run it; print what was found; 0 where all held."""
    patients, readers, parents, spacing = scale or Scale()
    if not model.is_dir():
        print(f"needs {model}; run `make demo` first")
        return 1
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "grade.toml").write_text(SETTINGS, encoding="utf-8")
        write_cohort(home / "few", PhantomSettings(patients=4, seed=1, difficulty=0.3, spacing=spacing), lambda _: None)
        linked(sorted((home / "few").glob("*/*/")), home / "cohort", patients)
        used: set[str] = set()  # files in /dev/shm; those of other programs come and go there, too
        wrong, lost = killed_readers(home, model, patients, (readers, chance), used)
        wrong += killed_parents(home, model, patients, (parents, chance), used)
        if left := [name for name in sorted(used) if (SHARED / name).exists()]:
            wrong.append(f"left in {SHARED}: {left}")
    for sentence in wrong:
        print(sentence)
    said = f", {lost} patients refused whose reader was killed twice" if lost else ""
    print(f"{patients} patients, {readers} kills of readers and {parents} of grade predict: {len(wrong)} wrong{said}")
    return int(bool(wrong))


def killed_readers(
    home: Path, model: Path, patients: int, kills: tuple[int, random.Random], used: set[str]
) -> tuple[list[str], int]:
    """One prediction, in which readers are killed one after the other; what it shares by name is added to `used`."""
    count, chance = kills
    running, killed = start(home, model, "readers"), 0
    while killed < count and running.poll() is None:
        time.sleep(chance.uniform(0.02, 0.4))
        if found := readers_of(running.pid):
            used |= shared(running.pid, *found)
            os.kill(chance.choice(found), signal.SIGKILL)
            killed += 1
    output, _ = running.communicate(timeout=PATIENCE)
    wrong = [] if killed == count else [f"only {killed} of {count} readers were killed before the end"]
    if running.returncode not in (0, 3) or b"Traceback" in output:
        wrong.append(f"grade predict ended with {running.returncode}: {output.decode()[-500:]}")
        return wrong, 0
    rows = table(home / "readers")
    wrong += whole(rows, patients)
    refused = [row["reason"] for row in rows if row["status"] != "graded"]
    wrong += [f"refused: {reason}" for reason in refused if LOST not in reason]
    return wrong, len(refused)


def killed_parents(
    home: Path, model: Path, patients: int, kills: tuple[int, random.Random], used: set[str]
) -> list[str]:
    """Predictions that are killed and resumed until they end; then others, until there were enough kills."""
    count, chance = kills
    wrong: list[str] = []
    killed, rounds = 0, 1
    while True:
        running = start(home, model, f"parents-{rounds}")
        while killed < count and not readers_of(running.pid) and running.poll() is None:
            time.sleep(0.02)
        if killed < count:
            time.sleep(chance.uniform(0.0, chance.choice([0.05, 0.3, 2.0])))
            found = readers_of(running.pid)
            used |= shared(running.pid, *found)
            if running.poll() is None:
                running.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                killed += 1
                running.communicate(timeout=PATIENCE)
                end = time.monotonic() + 10
                while (left := [pid for pid in found if is_reader(pid)]) and time.monotonic() < end:
                    time.sleep(0.02)
                wrong += [f"after kill {killed} reader {pid} is left" for pid in left]
                continue
        output, _ = running.communicate(timeout=PATIENCE)
        if running.returncode:
            return [*wrong, f"a prediction ended with {running.returncode}: {output.decode()[-500:]}"]
        wrong += whole(table(home / f"parents-{rounds}"), patients)
        if killed == count:
            return wrong
        rounds += 1


def start(home: Path, model: Path, out: str) -> subprocess.Popen[bytes]:
    """A prediction of the cohort."""
    command = [sys.executable, "-m", "cli", "predict", "cohort", "--model", str(model), "--out", out, "--resume"]
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=home, env=os.environ | path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )


def whole(rows: list[dict[str, str]], patients: int) -> list[str]:
    """What is wrong with a table in which every patient should stand once, each copy answered alike."""
    names = [row["patient"] for row in rows]
    wrong = [] if len(set(names)) == len(names) == patients else [f"{len(names)} rows, {len(set(names))} patients"]
    answers: dict[int, set[str]] = {}
    for row in rows:
        if row["status"] == "graded":
            answers.setdefault(int(row["patient"].removeprefix("patient")) % 4, set()).add(row["probability"])
    return wrong + [
        f"copies of patient {one} were answered {found}" for one, found in answers.items() if len(found) > 1
    ]


def table(out: Path) -> list[dict[str, str]]:
    """The rows of the results; they are those of the JSON as well."""
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    full = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["patients"]
    return rows if [one["patient"] for one in full] == [row["patient"] for row in rows] else []


def readers_of(parent: int) -> list[int]:
    """Processes that read for a prediction."""
    return [pid for pid in children(parent) if is_reader(pid)]


def is_reader(pid: int) -> bool:
    """Whether a process is there and reads patients."""
    try:
        return READER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def shared(*processes: int) -> set[str]:
    """Names of the files in `/dev/shm` that processes have in their memory now."""
    found: set[str] = set()
    for process in processes:
        try:
            maps = Path(f"/proc/{process}/maps").read_text(encoding="utf-8")
        except OSError:  # it has ended
            continue
        found |= {line.partition(f"{SHARED}/")[2] for line in maps.splitlines() if f"{SHARED}/" in line}
    return found


if __name__ == "__main__":
    sys.exit(main())
