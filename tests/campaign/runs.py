"""Run folders altered in 40 ways, and `grade train` killed 20 times: no traceback, no hang, no lost epoch.

Each command runs in a fork of this process, which has loaded torch and computed nothing.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from cli.main import run as run_grade
from toolkit.data.patients import MODALITIES
from toolkit.training.network import backbones, checkpoint
from toolkit.training.runs import outcome

PATIENCE = 240.0  # seconds for a command; on an idle core each takes about two
SETTINGS = """
[data]
cohort = "cohort"
shape = [16, 16, 16]
validation = 0.5
[network]
depth = 10
[training]
epochs = 3
min_epochs = 3
warmup_epochs = 0
batch_size = 3
accumulation = 3
"""
# With all that a training needs, so that no fork has to load it.
LOADED = (
    "torch._dynamo",
    "cli.screens.train",
    "cli.commands.calibrate",
    "cli.commands.report",
    "toolkit.training.start",
)
RUN = Path("runs/a")
TRAIN, RESUME = ("train", "--name", "a"), ("train", "--resume", "--name", "a")


class Ended(NamedTuple):
    """How a command ended: exit code, negative for a signal; what it printed."""

    code: int
    text: str

    @property
    def clean(self) -> bool:
        """Whether it ended by itself, and without a traceback."""
        return self.code in {0, 1, 2, 3} and "Traceback" not in self.text


def grade(*words: str, before: Callable[[], None] = lambda: None) -> Ended:
    """Run `grade` in a fork, after `before`; killed when it takes too long."""
    child = os.fork()
    if child == 0:
        _become(words, before)
    until = time.monotonic() + PATIENCE
    done, status = os.waitpid(child, os.WNOHANG)
    while not done:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(-1000, f"hung for {PATIENCE:g} s")
        time.sleep(0.01)
        done, status = os.waitpid(child, os.WNOHANG)
    return Ended(os.waitstatus_to_exitcode(status), Path("shown.txt").read_text(errors="replace"))


def _become(words: tuple[str, ...], before: Callable[[], None]) -> None:
    code = 99
    try:
        shown = os.open("shown.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(shown, 1)
        os.dup2(shown, 2)
        before()
        sys.argv = ["grade", *words]
        run_grade()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:  # noqa: BLE001  # whatever it is, it is shown and counted
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def write_cohort() -> None:
    """Six LGG and six HGG; in HGG the middle of T1ce is bright."""
    for seed in range(12):
        folder = Path("cohort") / ("LGG", "HGG")[seed % 2] / f"p{seed:02}"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for name in MODALITIES:
            image = np.zeros((20, 20, 18), np.int16)
            image[2:18, 2:18, 2:16] = rng.normal(400, 60, (16, 16, 14))
            if name == "t1ce" and seed % 2:
                image[7:13, 7:13, 6:11] += 400
            nib.save(nib.Nifti1Image(image, np.diag([-1.0, -1.0, 1.0, 1.0])), folder / f"{folder.name}_{name}.nii.gz")
    Path("grade.toml").write_text(SETTINGS)


# --- kills


def killed(point: str, number: int) -> Callable[[], None]:
    """Make this process kill itself at a point of a checkpoint, the so-many-th time that it comes there."""
    left = number

    def arrive() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm() -> None:
        if point == "write":
            write = checkpoint._Hashing.write

            def half(self: checkpoint._Hashing, content: bytes) -> int:
                if len(content) > 1000:
                    arrive()
                return write(self, content)

            checkpoint._Hashing.write = half  # type: ignore[method-assign]
            return
        when, name = point.split()
        replace = Path.replace

        def replacing(self: Path, target: Path) -> Path:
            ours = Path(target).name == name
            if ours and when == "before":
                arrive()
            found = replace(self, target)
            if ours and when == "after":
                arrive()
            return found

        Path.replace = replacing  # type: ignore[method-assign, assignment]

    return arm


# (where, which time, epochs that the run must still have afterwards)
KILLS = [
    *((f"{when} last.pt", epoch, epoch - (when == "before")) for when in ("before", "after") for epoch in (1, 2, 3)),
    *(("write", parts, None) for parts in (1, 5, 40, 90)),
    *((f"{when} steps.csv", epoch, epoch) for when, epoch in (("before", 1), ("after", 2))),
    *((f"{when} history.csv", epoch, epoch) for when, epoch in (("before", 2), ("after", 3))),
    *((f"{when} best.safetensors", 1, 0) for when in ("before", "after")),
    ("before environment.json", 1, 0),
    ("after validation.csv", 1, 3),
    ("before calibration.json", 1, 3),
    ("before report.html", 1, 3),
]


def results() -> dict[str, bytes]:
    """What a training leaves behind, without what tells the time."""
    rows = list(csv.DictReader((RUN / "history.csv").open()))
    kept = [{key: value for key, value in row.items() if key not in {"seconds", "images_per_second"}} for row in rows]
    names = ("best.safetensors", "validation.csv", "calibration.json", "steps.csv")
    return {"history": repr(kept).encode()} | {name: (RUN / name).read_bytes() for name in names}


def kill(point: str, number: int, kept: int | None, wanted: dict[str, bytes]) -> str:
    """Train, be killed, resume; what is wrong afterwards."""
    shutil.rmtree("runs", ignore_errors=True)
    first = grade(*TRAIN, before=killed(point, number))
    if first.code != -signal.SIGKILL:
        return f"was not killed: {first}"
    if kept is None:
        kept = _epochs()
    elif _epochs() != kept:
        return f"{_epochs()} epochs are left, not {kept}"
    again = grade(*RESUME)
    if again.code or not again.clean:
        return f"resuming ended with {again.code}: {again.text[-300:]}"
    if kept and f"Continuing after epoch {kept}." not in again.text:
        return f"did not continue after epoch {kept}: {again.text[:300]}"
    left = [path.name for path in RUN.iterdir() if path.name.startswith(".")]
    if left:
        return f"left {left}"
    return "" if results() == wanted else "other results than without the kill"


def _epochs() -> int:
    file = RUN / "last.pt"
    return len(checkpoint.read_checkpoint(file)["history"]) if file.exists() else 0


# --- alterations


def flip(name: str, share: float) -> Callable[[], None]:
    """One bit of a file, so far into it."""

    def alter() -> None:
        content = bytearray((RUN / name).read_bytes())
        content[int(share * (len(content) - 1))] ^= 4
        (RUN / name).write_bytes(content)

    return alter


def content(name: str, new: bytes) -> Callable[[], None]:
    """A file with other content."""
    return lambda: (RUN / name).write_bytes(new) and None


def swap(name: str, old: str, new: str) -> Callable[[], None]:
    """Other words in a text file."""

    def alter() -> None:
        text = (RUN / name).read_text()
        if old not in text:
            raise ValueError(f"{name} lacks {old}")
        (RUN / name).write_text(text.replace(old, new))

    return alter


def special(name: str, kind: str) -> Callable[[], None]:
    """A pipe, a device, a folder or a dangling link in place of a file."""

    def alter() -> None:
        file = RUN / name
        file.unlink()
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        else:
            file.symlink_to({"device": "/dev/zero", "dangling": "nowhere"}[kind])

    return alter


def bomb() -> None:
    """A checkpoint of a few kilobytes that unpacks to 2 GB, with the right checksum."""
    with (
        zipfile.ZipFile(RUN / "bomb", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as part,
    ):
        for _ in range(2048):
            part.write(bytes(2**20))
    sealed((RUN / "bomb").read_bytes)


def sealed(make: Callable[[], bytes]) -> None:
    """A checkpoint of that content, with the right checksum."""
    with (RUN / "last.pt").open("wb") as stream:
        hashing = checkpoint._Hashing(stream)
        hashing.write(make())
        stream.write(hashing.tail())


def repacked(change: Callable[[dict[str, object]], object]) -> Callable[[], None]:
    """The checkpoint with another content, with the right checksum."""

    def alter() -> None:
        found = checkpoint.read_checkpoint(RUN / "last.pt")
        change(found)
        checkpoint.write_checkpoint(RUN / "last.pt", found)

    return alter


# name -> (what is done to the run, whether resuming must refuse it)
ALTERATIONS: dict[str, tuple[Callable[[], None], bool]] = {
    **{f"last.pt flipped at {share}": (flip("last.pt", share), True) for share in (0, 0.1, 0.4, 0.7, 0.95, 0.9999, 1)},
    **{f"weights flipped at {share}": (flip("best.safetensors", share), True) for share in (0, 0.001, 0.3, 0.6, 1)},
    **{f"last.pt {kind}": (special("last.pt", kind), True) for kind in ("pipe", "device", "folder", "dangling")},
    **{f"weights {kind}": (special("best.safetensors", kind), True) for kind in ("pipe", "device", "folder")},
    **{f"settings {kind}": (special("settings.toml", kind), True) for kind in ("pipe", "device", "folder")},
    **{f"split {kind}": (special("split.csv", kind), True) for kind in ("pipe", "device")},
    "last.pt empty": (content("last.pt", b""), True),
    "last.pt a bomb": (bomb, True),
    "last.pt another thing": (lambda: sealed(lambda: b"text"), True),
    "last.pt without epochs": (repacked(lambda found: found.pop("history")), True),
    "last.pt with an unknown part": (repacked(lambda found: found.update(more=1)), True),
    "last.pt epochs twice": (repacked(lambda found: found.update(history=[*found["history"]] * 2)), True),  # type: ignore[misc]
    "last.pt another optimizer": (repacked(lambda found: found.update(optimizer={"state": 3})), True),
    "last.pt another network": (repacked(lambda found: found.update(network={"x": torch.zeros(1)})), True),
    "weights without a header": (content("best.safetensors", b"\xff" * 8 + b"{}"), True),
    "weights nested deeply": (content("best.safetensors", (200_000).to_bytes(8, "little") + b"[" * 200_000), True),
    "another seed": (swap("settings.toml", "seed = 0", "seed = 1"), True),
    "more epochs": (swap("settings.toml", "\nepochs = 3", "\nepochs = 5"), True),
    "another learning rate": (swap("settings.toml", "head_lr = 0.0002", "head_lr = 0.0003"), True),
    "settings not text": (content("settings.toml", b"\xff\xfe\x00"), True),
    "settings unknown": (content("settings.toml", b"[training]\nepoch = 3\n"), True),
    "a patient on the other side": (swap("split.csv", "p00,LGG,,training", "p00,LGG,,validation"), True),
    "a grade turned round": (swap("split.csv", "p01,HGG", "p01,LGG"), True),
    "split of a thing": (content("split.csv", b"a,b\n1,2\n"), True),
    "history of words": (content("history.csv", b"epoch\nlast\n"), False),  # resuming writes it again
    "steps gone": ((RUN / "steps.csv").unlink, False),
    "a hidden link": (lambda: (RUN / ".history.csv.tmp").symlink_to("../../grade.toml"), False),
    "a hidden pipe": (lambda: os.mkfifo(RUN / ".last.pt.tmp"), False),
}


def altered(name: str, commands: Sequence[tuple[str, ...]]) -> str:
    """Resume an altered run, and whatever else is asked of it; what is wrong."""
    shutil.rmtree("runs")
    shutil.copytree("good", RUN.parent, symlinks=True)
    alter, refused = ALTERATIONS[name]
    toml = Path("grade.toml").read_bytes()
    alter()
    for words in commands:
        ended = grade(*words)
        if not ended.clean:
            return f"grade {' '.join(words)} ended with {ended.code}: {ended.text[-400:]}"
        if words is RESUME and (ended.code != 0) != refused:
            return f"was {'not ' if refused else ''}refused: {ended.text[-300:]}"
    return "" if Path("grade.toml").read_bytes() == toml else "wrote through a link"


def main(few: bool = False) -> int:
    """Print what was tried and what failed.

    Args:
        few: a sample for the suite.
    """
    backbones.PLANES = [4, 8, 16, 32]  # type: ignore[attr-defined]
    outcome.training_report = lambda record: f"page of {record.name}"  # type: ignore[attr-defined]  # no pictures
    torch.set_num_threads(1)
    for name in LOADED:
        import_module(name)
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="grade-campaign-") as folder:
        os.chdir(folder)
        try:
            return _attack(few)
        finally:
            os.chdir(before)


def _attack(few: bool) -> int:
    write_cohort()
    first = grade(*TRAIN)
    if first.code:
        print(f"could not prepare: {first}")
        return 1
    wanted = results()
    shutil.copytree(RUN.parent, "good", symlinks=True)
    failed = 0
    kills = [KILLS[i] for i in (1, 4)] if few else KILLS
    names = [name for number, name in enumerate(ALTERATIONS) if not few or number in {2, 12, 37}]
    for name in names:
        tensors = name.startswith(("last.pt", "weights"))  # which the other commands do not read
        commands = (RESUME,) if few or tensors else (RESUME, ("calibrate", str(RUN)), ("report", str(RUN)))
        sentence = altered(name, commands)
        failed += bool(sentence)
        print(f"{'WRONG' if sentence else 'held'}  {name}  {sentence}", flush=True)
    for point, number, kept in kills:
        sentence = kill(point, number, kept, wanted)
        failed += bool(sentence)
        print(f"{'WRONG' if sentence else 'held'}  killed {point}, time {number}  {sentence}", flush=True)
    print(f"{len(names)} altered run folders and {len(kills)} kills of grade train: {failed} wrong")
    return int(failed > 0)
