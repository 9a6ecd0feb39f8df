"""A hundred altered models: `grade verify` and `grade predict` refuse each with a sentence, or grade as before.

Every command runs in a process of its own, forked from one that has imported everything. Counted are tracebacks, hangs
(over 10 s of CPU or 120 s of wall), memory over 1 GB, wrong grades, and disagreements: a model that one of the two
refuses and the other takes, unless the altered file is one that this prediction does not open.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COUNT = 105  # seven of each kind
CPU_SECONDS, WALL_SECONDS, MEMORY = 10, 120, 2**30
Alter = Callable[[Path, random.Random], None]
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", "-1", "0", '"x"', "null", "[]", "{}", "9" * 400)


def seal(folder: Path, text: bytes) -> None:
    """Write a manifest with its right seal."""
    replace(folder / "manifest.json", text)
    replace(folder / "manifest.sha256", f"{hashlib.sha256(text).hexdigest()}  manifest.json\n".encode())


def replace(path: Path, content: bytes) -> None:
    """Write a file that may be a hard link to another model's."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def rehash(folder: Path, name: str, content: bytes) -> None:
    """Put a file into a model as its maker would: with the right hash."""
    replace(folder / name, content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    seal(folder, json.dumps(manifest).encode())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all plain values of a manifest."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        return [path]
    return [leaf for key, one in inner for leaf in leaves(one, (*path, key))]


def any_value(folder: Path, rng: random.Random) -> None:
    """One value of the manifest becomes something else."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    *way, last = rng.choice([leaf for leaf in leaves(manifest) if leaf[0] not in ("versions", "created", "training")])
    part = manifest
    for key in way:
        part = part[key]
    part[last] = "@here@"
    seal(folder, json.dumps(manifest).replace('"@here@"', rng.choice(NUMBERS)).encode())


def missing_key(folder: Path, rng: random.Random) -> None:
    """One key of the manifest is gone."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest[rng.choice([key for key in manifest if key != "reference"])]
    seal(folder, json.dumps(manifest).encode())


def huge_count(folder: Path, rng: random.Random) -> None:
    """A size of the manifest is enormous."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change = rng.choice(
        [{"max_batch": 10**9}, {"outputs": {"features": 10**9, "evidence": [1, 1, 1]}}, {"grid": {"shape": [512] * 3}},
         {"network": manifest["network"] | {"members": 10**6}}, {"grid": {"spacing": 1e-300}}]
    )  # fmt: skip
    key, value = next(iter(change.items()))
    manifest[key] = manifest[key] | value if isinstance(value, dict) else value
    seal(folder, json.dumps(manifest).encode())


def deep_json(folder: Path, rng: random.Random) -> None:
    """Brackets without end, as manifest."""
    depth = rng.choice([10**3, 10**5, 10**6])
    seal(folder, b'{"format": 1, "files": ' + b"[" * depth + b"]" * depth + b"}")


def cut_manifest(folder: Path, rng: random.Random) -> None:
    """A manifest that ends in the middle, its seal right."""
    text = (folder / "manifest.json").read_bytes()
    seal(folder, text[: rng.randrange(len(text))])


def flipped_bit(folder: Path, rng: random.Random) -> None:
    """One bit of a file that prediction opens."""
    path = folder / rng.choice(["model.onnx", "familiarity.npz", "selftest.npz", "manifest.json", "manifest.sha256"])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    replace(path, bytes(content))


def cut_file(folder: Path, rng: random.Random) -> None:
    """A file that ends in the middle, its hash right."""
    name = rng.choice(["model.onnx", "familiarity.npz", "selftest.npz"])
    content = (folder / name).read_bytes()
    rehash(folder, name, content[: rng.randrange(len(content))])


def garbage(folder: Path, rng: random.Random) -> None:
    """Random bytes, an empty file or a pickle in place of a file, its hash right."""
    name = rng.choice(["model.onnx", "familiarity.npz", "selftest.npz"])
    rehash(
        folder, name, rng.choice([b"", rng.randbytes(1000), b"\x80\x04cposix\nsystem\n(X\x02\0\0\0idtR.", b"PK\3\4"])
    )


def special_file(folder: Path, rng: random.Random) -> None:
    """A pipe, a device, a folder, a loop of links in place of a file."""
    path = folder / rng.choice(["model.onnx", "familiarity.npz", "selftest.npz", "manifest.json", "manifest.sha256"])
    path.unlink()
    rng.choice(
        [lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.mkdir, lambda: path.symlink_to(path.name),
         lambda: path.symlink_to("/dev/tty"), lambda: None]
    )()  # fmt: skip


def arrays(folder: Path, name: str, **changes: Any) -> None:
    """Arrays of an archive, changed."""
    with np.load(folder / name) as stored:
        content = dict(stored) | changes
    out = io.BytesIO()
    np.savez_compressed(out, **{key: value for key, value in content.items() if value is not None})
    rehash(folder, name, out.getvalue())


def wrong_array(folder: Path, rng: random.Random) -> None:
    """An array missing, of another shape or type, not finite, or with a variance of nothing."""
    name = rng.choice(["familiarity.npz", "selftest.npz"])
    with np.load(folder / name) as stored:
        key = rng.choice(sorted(stored))
        old = stored[key]
    spoilt = np.full_like(old, rng.choice([np.nan, np.inf, -np.inf]))
    arrays(folder, name, **{key: rng.choice([None, spoilt, old[None], old.astype("U5"), old.astype(np.int32)])})


def bomb(folder: Path, rng: random.Random) -> None:
    """A small archive that unpacks to gigabytes, or says so."""
    name, key = rng.choice([("familiarity.npz", "components"), ("selftest.npz", "coarse")])
    rows = rng.choice([2**21, 2**40])
    with np.load(folder / name) as stored:
        shape = (rows, stored[key].shape[1]) if name.startswith("fam") else (4, rows, 4, 3)
        rest = {other: stored[other] for other in stored if other != key}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])) as archive:
        for other, value in rest.items():
            with archive.open(f"{other}.npy", "w") as stream:
                np.lib.format.write_array(stream, value)
        with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
            stream.write(header.getvalue())
            for _ in range(30):
                stream.write(bytes(2**23))
    rehash(folder, name, out.getvalue())


def graph(folder: Path, change: Callable[[Any], None]) -> None:
    """A changed graph, its hash right."""
    model = onnx.load(folder / "model.onnx")
    change(model)
    rehash(folder, "model.onnx", model.SerializeToString())


def endless(folder: Path, rng: random.Random) -> None:
    """A loop without end before the logits; or an If, a Scan, a function, another domain, a script."""
    info, none = helper.make_tensor_value_info, None
    begin = [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, none)]
    end = [info("c2", TensorProto.BOOL, []), info("x2", TensorProto.FLOAT, none)]
    same = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["x"], ["x2"])]
    body = helper.make_graph(same, "body", begin, end)
    kind = rng.choice(["Loop", "domain", "function", "external", "If"])

    def change(model: Any) -> None:
        for node in model.graph.node:
            for index, out in enumerate(node.output):
                if out == "logits":
                    node.output[index] = "before"
        if kind == "Loop":
            model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "often"))
            model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
            model.graph.node.append(helper.make_node("Loop", ["often", "true", "before"], ["logits"], body=body))
        elif kind == "If":
            model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
            model.graph.node.append(helper.make_node("If", ["true"], ["logits"], then_branch=body, else_branch=body))
        elif kind == "external":
            model.graph.node.append(helper.make_node("Identity", ["before"], ["logits"]))
            weight = model.graph.initializer[0]
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="/etc/passwd")
        else:
            model.opset_import.append(helper.make_opsetid("evil", 1))
            model.graph.node.append(helper.make_node("Run", ["before"], ["logits"], domain="evil"))
            if kind == "function":
                model.functions.append(
                    helper.make_function("evil", "Run", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])],
                                         [helper.make_opsetid("", 20)])
                )  # fmt: skip

    graph(folder, change)


def grows(folder: Path, rng: random.Random) -> None:
    """A node that makes gigabytes of a scan, or thousands of nodes that keep the machine busy."""
    kind = rng.choice(["Pad", "Concat", "Expand", "Add", "Conv", "busy"])

    def change(model: Any) -> None:
        add, weights = model.graph.node.append, model.graph.initializer
        if kind == "Pad":
            weights.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 0, 10**5, 10**5, 10**5]), "pads"))
            add(helper.make_node("Pad", ["scan", "pads"], ["waste"]))
        elif kind == "Concat":
            for number in range(30):
                name = "scan" if number == 0 else f"waste{number}"
                add(helper.make_node("Concat", [name, name], [f"waste{number + 1}"], axis=1))
        elif kind == "Expand":
            weights.append(numpy_helper.from_array(np.array([10**4] * 5), "to"))
            add(helper.make_node("Expand", ["scan", "to"], ["waste"]))
        elif kind == "Add":
            weights.append(numpy_helper.from_array(np.zeros((10**5, 1), np.float32), "tall"))
            weights.append(numpy_helper.from_array(np.zeros((1, 10**5), np.float32), "wide"))
            add(helper.make_node("Add", ["tall", "wide"], ["waste"]))
        else:
            weights.append(numpy_helper.from_array(np.zeros((64, 4, 9, 9, 9), np.float32), "kernel"))
            weights.append(numpy_helper.from_array(np.zeros((4, 64, 1, 1, 1), np.float32), "back"))
            name = "scan"
            for number in range(3 if kind == "Conv" else 3000):
                add(helper.make_node("Conv", [name, "kernel"], [f"w{number}"], pads=[4] * 6, kernel_shape=[9] * 3))
                add(helper.make_node("Conv", [f"w{number}", "back"], [f"v{number}"], kernel_shape=[1] * 3))
                name = f"v{number}"

    graph(folder, change)


def wrong_graph(folder: Path, rng: random.Random) -> None:
    """Ends renamed or of another shape, a weight NaN, a node gone, the fp16 graph in place of fp32."""
    kind = rng.choice(["rename", "shape", "nan", "gone", "constant"])

    def change(model: Any) -> None:
        if kind == "rename":
            model.graph.output[0].name = "other"
        elif kind == "shape":
            model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 7
        elif kind == "gone":
            del model.graph.node[rng.randrange(len(model.graph.node))]
        else:
            weight = rng.choice([one for one in model.graph.initializer if one.data_type == TensorProto.FLOAT])
            value = np.nan if kind == "nan" else 1e30
            array = np.full_like(numpy_helper.to_array(weight), value)
            weight.CopyFrom(numpy_helper.from_array(array, weight.name))

    graph(folder, change)


def stranger(folder: Path, rng: random.Random) -> None:
    """A file that nobody wrote, a pickle, or something in engines/; prediction opens none."""
    (folder / "engines").mkdir(exist_ok=True)
    rng.choice(
        [lambda: (folder / "notes.txt").write_text("x"), lambda: (folder / "x.pkl").write_bytes(b"x"),
         lambda: (folder / "engines" / "evil.plan").write_bytes(b"x"),
         lambda: (folder / "engines" / "evil.json").write_text("[" * 10**6),
         lambda: os.mkfifo(folder / "engines" / "pipe.json")]
    )()  # fmt: skip


KINDS: dict[str, Alter] = {
    alter.__name__: alter
    for alter in (any_value, missing_key, huge_count, deep_json, cut_manifest, flipped_bit, cut_file, garbage,
                  special_file, wrong_array, bomb, endless, grows, wrong_graph, stranger)
}  # fmt: skip
NOT_OPENED = {"stranger"}  # by prediction on a CPU; `grade verify` names them


class Ended:
    """How a command ended."""

    def __init__(self, code: int | None, said: str, cpu: float, memory: int) -> None:
        self.code, self.said, self.cpu, self.memory = code, said, cpu, memory

    def faults(self) -> list[str]:
        """What must not be."""
        found = []
        if "Traceback" in self.said or self.code not in (0, 1, 3, None):
            found.append("tracebacks")
        if self.code is None or self.cpu > CPU_SECONDS:
            found.append("hangs")
        if self.memory > MEMORY:
            found.append("over 1 GB")
        if self.code == 1 and not self.said.strip():
            found.append("without a sentence")
        return found


def grade(*words: str) -> Ended:
    """Run a command in a fork of this process."""
    from cli.main import run

    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.argv = ["grade", *words]
            code = 99
            try:
                run()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:  # noqa: BLE001 - counted as a traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code, until = None, time.monotonic() + WALL_SECONDS
        while time.monotonic() < until:
            ended, status, used = os.wait4(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.02)
        else:
            os.kill(child, signal.SIGKILL)
            _, _, used = os.wait4(child, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    return Ended(code, text, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def probability(out: Path) -> float:
    """Of the only patient."""
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return float(next(csv.DictReader(stream))["probability"])


def attack(model: Path, patient: Path, work: Path, numbers: range) -> Counter[str]:
    """Alter the model once for each number, and count what went wrong; `altered` counts all."""
    found: Counter[str] = Counter()
    base = grade("predict", str(patient), "--model", str(model), "--out", str(work / "base"), "--device", "cpu")
    if base.code != 0:
        raise SystemExit(f"the unaltered model cannot grade: {base.said[-500:]}")
    wanted = probability(work / "base")
    names = list(KINDS)
    for number in numbers:
        name, folder, out = names[number % len(names)], work / "model", work / "results"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(model, folder, copy_function=os.link)
        KINDS[name](folder, random.Random(number))
        verified = grade("verify", str(folder))
        graded = grade("predict", str(patient), "--model", str(folder), "--out", str(out), "--device", "cpu")
        faults = {*verified.faults(), *graded.faults()}
        if (verified.code == 0) != (graded.code == 0) and not (name in NOT_OPENED and graded.code == 0):
            faults.add("disagreements")
        if graded.code == 0 and abs(probability(out) - wanted) > 1e-6:
            faults.add("wrong grades")
        found.update(["altered", "refused" if verified.code else "taken", *faults])
        if faults:
            print(f"{name} {number}: {', '.join(sorted(faults))}; verify {verified.code}, predict {graded.code}:"
                  f" {(graded.said or verified.said).strip()[-300:]}")  # fmt: skip
    return found


def main() -> int:
    """Print the counts; 0 where nothing went wrong. MODEL and PATIENT of a finished demo, `demo/`, are taken."""
    demo = Path("demo")
    patient = next(iter(sorted((demo / "held-out" / "HGG").iterdir())), None) if demo.is_dir() else None
    if patient is None:
        print("models: run `grade demo` first; its model and a held-out patient are needed")
        return 2
    with tempfile.TemporaryDirectory(dir=demo) as work:  # the same file system, so that files can be linked
        found = attack(demo / "model", patient, Path(work), range(COUNT))
    kinds = ("tracebacks", "hangs", "over 1 GB", "without a sentence", "disagreements", "wrong grades")
    print(f"models: {found['altered']} altered, {found['refused']} refused, {found['taken']} taken; "
          + ", ".join(f"{found[kind]} {kind}" for kind in kinds))  # fmt: skip
    return int(any(found[kind] for kind in kinds))
