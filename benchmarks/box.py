"""A box at the speed of its files: from bare decompression to `grade predict`, by cores, in one run.

    python -m benchmarks.box MODEL PATIENT_FOLDER [PATIENT_FOLDER ...] --cores 1 2 4 8 16

The cohort is the patients' files, linked under many names. For each number of cores, ms a patient of: `libdeflate`,
bare decompression in as many threads, which no reader can beat; `door`, opened and checked; `threads` and `processes`,
read, preprocessed and hashed; `card`, the same without the preprocessing, as a GPU's readers do it; `whole, processes`
and `whole, threads`, all of `grade predict` in steady state; `MONAI`, the usual transforms in a DataLoader with as many
workers, and the trained network in torch under AMP. Each is measured in a process of its own that is bound to the
cores. Then what one answer takes from a cold start, and what memory a hundred and a thousand patients take.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import imagecodecs
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import arguments, keep, linked, machine
from deploy.model.folder import Model, open_model
from deploy.predict.pipeline import PredictOptions, Summary, predict
from deploy.predict.reader import Wanted, reader
from deploy.runtime import Choice
from toolkit.config import PredictSettings, Readers
from toolkit.data.memory import Workspaces
from toolkit.data.patients import Patient, find_patients, match_modalities
from toolkit.data.reading.door import Reading, open_patient

HEAD = 0.2  # share of the patients before the clock starts: what is read while the runtime opens is no merit
KINDS = (np.float32, np.float64)
BATCH = 8


def steady(times: Sequence[float]) -> float:
    """Ms a patient from the end of the head to the end of all."""
    first = int(HEAD * len(times))
    return 1000 * (times[-1] - times[first]) / (len(times) - 1 - first)


def in_threads(work: Callable[[Patient], object], patients: Sequence[Patient], cores: int) -> float:
    """Ms a patient."""
    with threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
        list(pool.map(work, patients[:cores]))
        start = perf_counter()
        list(pool.map(work, patients))
    return 1000 * (perf_counter() - start) / len(patients)


def libdeflate(patients: Sequence[Patient], model: Model, cores: int) -> float:
    """Files read and decompressed into memory that is used again."""
    local = threading.local()

    def work(patient: Patient) -> None:
        if not hasattr(local, "buffers"):
            local.buffers = [np.empty(1, np.uint8)] * 4
        for number, file in enumerate(match_modalities(patient.folder).modalities.values()):
            raw = file.read_bytes()
            size = int.from_bytes(raw[-4:], "little")
            if len(local.buffers[number]) != size:
                local.buffers[number] = np.empty(size, np.uint8)
            imagecodecs.gzip_decode(raw, out=local.buffers[number].data)

    return in_threads(work, patients, cores)


def door(patients: Sequence[Patient], model: Model, cores: int) -> float:
    """Opened and checked, in threads."""
    of_thread = Workspaces()
    return in_threads(lambda patient: open_patient(patient, Reading(of_thread.mine)), patients, cores)


def reading(readers: Readers, boxes: bool = False) -> Callable[[Sequence[Patient], Model, int], float]:
    """Read, preprocessed unless the card does it, and hashed."""

    def measure(patients: Sequence[Patient], model: Model, cores: int) -> float:
        wanted, times = Wanted(model.manifest.grid, None, (), boxes), []
        with threadpool_limits(1), reader(patients, wanted, cores, readers) as reads:
            while (read := reads.take(BATCH)) is not None:
                if not read.scan:
                    raise SystemExit(f"{read.patient.id} was refused: {read.reason}")
                times.append(perf_counter())
        return steady(times)

    return measure


def whole(readers: Readers) -> Callable[[Sequence[Patient], Model, int], Any]:
    """All of `grade predict`."""

    def measure(patients: Sequence[Patient], model: Model, cores: int) -> Any:
        summary, times = graded(patients, model, readers)
        parts = {name: round(seconds, 3) for name, seconds in vars(summary.timings).items()}
        return {
            "ms": steady(times) if len(times) > 1 else None,
            "chosen": summary.plan.chosen,
            "measured": summary.plan.measured,
            **parts,
        }

    return measure


def graded(patients: Sequence[Patient], model: Model, readers: Readers) -> tuple[Summary, list[float]]:
    """What came of a prediction, and when each patient was done."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        options = PredictOptions(Path(out), Choice("onnx"), PredictSettings(readers=readers))
        summary = predict(patients, model, options, lambda _: None, lambda _: times.append(perf_counter()))
    if summary.refused:
        raise SystemExit(f"{summary.refused} patients were refused")
    return summary, times


def monai(patients: Sequence[Patient], model: Model, cores: int) -> float:
    """MONAI's transforms in a DataLoader, torch under AMP."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from benchmarks.read import monai_chain
    from deploy.runtimes.open import open_runtime

    paths = [{k: str(v) for k, v in match_modalities(p.folder).modalities.items()} for p in patients]
    network: Any = open_runtime(model, Choice("torch", "auto", "fp32"))
    device, net, chain = network.device, network.network, monai_chain(model.manifest.grid)

    class Scans(Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, number: int) -> Any:
            torch.set_num_threads(1)
            return torch.as_tensor(chain(paths[number])["image"])

    times: list[float] = []
    waiting: list[Any] = []
    with torch.inference_mode(), torch.autocast(device.partition(":")[0], torch.float16, enabled=device != "cpu"):
        # One scan an item, so that no worker idles at the end while a batch is not full.
        for scan in DataLoader(Scans(), None, num_workers=cores, pin_memory=device != "cpu"):
            waiting.append(scan.to(device, non_blocking=True))
            if len(waiting) == BATCH:
                net(torch.stack(waiting).to(memory_format=torch.channels_last_3d)).logits.cpu()
                times += [perf_counter()] * len(waiting)
                waiting = []
    return steady(times)


def memory(patients: Sequence[Patient], model: Model, cores: int) -> Any:
    """The largest memory of all processes together, and of those the parent, MiB; shared pages count once."""
    largest, done = [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            sizes = [pss(pid) for pid in (os.getpid(), *children(os.getpid()))]
            largest[0], largest[1] = max(largest[0], sum(sizes)), max(largest[1], sizes[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        graded(patients, model, "auto")
    finally:
        done.set()
        watcher.join()
    return {"all": largest[0], "parent": largest[1]}


def children(parent: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def pss(pid: int) -> float:
    """Its share of the memory, MiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def agreement(patients: Sequence[Patient], model: Model, cores: int) -> Any:
    """The same patients with scans made on the processor and on the card: what differs."""
    answers = []
    for readers in ("threads", "processes"):
        with tempfile.TemporaryDirectory() as out:
            records: list[Any] = []
            settings = PredictSettings(readers=readers)  # type: ignore[arg-type]
            options = PredictOptions(Path(out), Choice("onnx"), settings)
            predict(patients, model, options, lambda _: None, records.append)
            answers.append(records)
    pairs = list(zip(*answers, strict=True))
    both = [(a, b) for a, b in pairs if a.probability is not None and b.probability is not None]
    changed = [a.patient for a, b in pairs if (a.grade, a.verdict, a.reason) != (b.grade, b.verdict, b.reason)]
    return {
        "patients": len(pairs),
        "largest difference of a probability": max((abs(a.probability - b.probability) for a, b in both), default=0.0),
        "grades, verdicts or refusals changed": len(changed),
    }


PARTS: dict[str, Callable[[Sequence[Patient], Model, int], Any]] = {
    "libdeflate": libdeflate,
    "door": door,
    "threads": reading("threads"),
    "processes": reading("processes"),
    "card": reading("processes", boxes=True),
    "whole": whole("auto"),
    "whole, processes": whole("processes"),
    "whole, threads": whole("threads"),
    "MONAI": monai,
    "memory": memory,
    "agreement": agreement,
}


def measured(part: str, model: Path, cohort: Path, cores: int) -> Any:
    """A part in a process of its own, bound to so many cores; None where it failed, which is said."""
    own = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.box", str(model), str(cohort), "--part", part, "--cores", str(cores)],
        preexec_fn=lambda: os.sched_setaffinity(0, own),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=600,
    )
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    print(f"{part} on {cores}: {found}", flush=True)
    return found


def first_answers(model: Path, patient: Path, times: int) -> dict[str, list[float]]:
    """Seconds of the whole command for one patient, in fresh processes; with a page as well."""
    found = {}
    for name, more in (("one patient", []), ("one patient, --report", ["--report"])):
        seconds = []
        for _ in range(times):
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, "-m", "cli", "predict", str(patient), "--model", str(model), "--out", out]
                start = perf_counter()
                subprocess.run([*command, *more], check=True, capture_output=True)
                seconds.append(perf_counter() - start)
        found[name] = seconds
        print(f"{name}: {seconds}", flush=True)
    return found


def cohort_of(sources: Sequence[Path], out: Path, count: int) -> Path:
    """Links to so many patients."""
    if not out.exists():
        linked(sources, out, count)
    return out


def curve(model: Path, sources: Sequence[Path], home: Path, cores: int, count: int) -> Iterator[tuple[str, Any]]:
    """What so many cores do, ms a patient."""
    yield "cores", cores
    small = max(16, count * cores // 16 // 8 * 8)
    yield "patients", small
    for part in ("libdeflate", "door", "threads", "processes", "card", "whole, processes", "whole, threads"):
        yield part, measured(part, model, cohort_of(sources, home / f"of-{small}", small), cores)


def findings(given: Any, home: Path) -> Iterator[tuple[str, Any]]:
    """Everything, what matters most first: a long measurement may be cut off."""
    model, sources, cores = given.model, given.patients, sorted(given.cores, reverse=True)
    most, rows = cores[0], [dict[str, Any]() for _ in cores]
    few = cohort_of(sources, home / "few", 6 * most)
    for number, row in zip(cores, rows, strict=True):
        for name, value in curve(model, sources, home, number, given.count):
            row[name] = value
            yield "curve", rows
        if number == most:
            row["MONAI"] = measured("MONAI", model, few, most)
            yield "agreement", {str(same.name): measured("agreement", model, same, most) for same in given.same}
    yield "first answer, s", first_answers(model, sources[0], 2)
    yield "stages of one", measured("whole", model, cohort_of(sources, home / "one", 1), most)
    large = cohort_of(sources, home / "large", given.large)
    some = cohort_of(sources, home / "some", given.large // 10)
    yield "memory, MiB", {n: measured("memory", model, c, most) for n, c in (("tenth", some), ("all", large))}
    for kind in KINDS:
        name = np.dtype(kind).name
        copies = cohort_of([written(kind, sources[0], home)], home / f"{name}-cohort", given.count // 2)
        parts = {part: measured(part, model, copies, most) for part in ("libdeflate", "whole, processes")}
        yield f"{name} files", parts


def written(kind: Any, source: Path, home: Path) -> Path:
    """A patient's files with voxels of another type."""
    from benchmarks.read import written_as

    return written_as(kind, source, home).folder


def main() -> None:
    """Measure and report."""
    given = arguments(
        "A box at the speed of its files.",
        ("model", {"type": Path, "help": "exported model"}),
        ("patients", {"type": Path, "nargs": "+", "help": "folders with four modalities of int16"}),
        ("--cores", {"type": int, "nargs": "+", "default": [1, 2, 4, 8, 16]}),
        ("--count", {"type": int, "default": 240, "help": "patients for 16 cores; fewer for fewer"}),
        ("--large", {"type": int, "default": 1000, "help": "patients of the larger measurement of memory"}),
        ("--same", {"type": Path, "nargs": "*", "default": [], "help": "cohorts to grade with scans of both makes"}),
        ("--part", {"choices": sorted(PARTS), "help": "measure this alone, here"}),
    )
    model = open_model(given.model)
    if given.part:
        print(json.dumps(PARTS[given.part](find_patients(given.patients), model, given.cores[0])))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in findings(given, Path(folder)):
            found[name] = value
            if given.out:
                given.out.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n", encoding="utf-8")
    keep(found, given.out)


if __name__ == "__main__":
    main()
