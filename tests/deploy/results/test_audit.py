"""The audit file: what it says, what it never says, and what it notices."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.model.folder import Model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.results.audit import FIRST, Audit, verify_audit
from deploy.results.inputs import Inputs, hash_inputs
from deploy.results.journal import Chain
from deploy.results.record import Record, Seconds
from deploy.runtime import Choice
from tests.deploy.conftest import ignore
from tests.forked import Forked
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient, match_modalities
from toolkit.errors import GradeError


def record(number: int) -> Record:
    return Record(
        patient=f"secret-{number}",
        folder=f"/secret/{number}",
        grade="HGG",
        probability=0.75,
        threshold=0.5,
        reason="secret.nii.gz is short",
        notes=("secret",),
        runtime="onnx fp32 cpu",
        seconds=Seconds(read=0.25, infer=1.0),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    audit = Audit(tmp_path, {"numpy": "2"}, "abc", ids=False)
    for number in range(5):
        audit.add(record(number))
    return tmp_path / "audit.jsonl"


def grade(patients: tuple[Patient, ...], model: Model, out: Path, ids: bool = False) -> None:
    options = PredictOptions(out, Choice("onnx", "cpu"), PredictSettings(), audit_ids=ids)
    predict(patients, model, options, ignore, ignore)


def test_a_line_is_what_is_promised(file: Path) -> None:
    lines = file.read_text().splitlines()
    contents = [json.loads(line) for line in lines]
    assert [content["line"] for content in contents] == [1, 2, 3, 4, 5]
    previous = FIRST
    for line, content in zip(lines, contents, strict=True):
        body, _, _ = line.partition(', "hash"')
        assert content["previous"] == previous
        previous = content["hash"]
        assert previous == hashlib.sha256(body.encode()).hexdigest()
    assert verify_audit(file) == Chain(5, previous)
    assert (contents[0]["probability"], contents[0]["seconds"], contents[0]["versions"]) == (0.75, 1.25, {"numpy": "2"})


def test_nobody_is_named(patients: tuple[Patient, ...], model: Model, tmp_path: Path) -> None:
    broken = Patient("nobody", tmp_path / "nobody")
    broken.folder.mkdir()
    grade((*patients[:2], broken), model, tmp_path)
    text = (tmp_path / "audit.jsonl").read_text()
    for patient in (*patients, broken):
        assert patient.id not in text
    assert str(tmp_path) not in text
    contents = [json.loads(line) for line in text.splitlines()]
    assert [content["refused"] for content in contents] == [False, False, True]
    assert contents[0]["model"] == model.fingerprint
    assert contents[0]["engine"] == hashlib.sha256((model.folder / "model.onnx").read_bytes()).hexdigest()
    assert contents[2]["inputs"] == contents[2]["engine"] == ""
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert [one["probability"] for one in results["patients"]] == [content["probability"] for content in contents]
    assert results["audit"] == {"lines": 3, "last": contents[2]["hash"]}


def test_ids_on_request_and_runs_in_one_chain(patients: tuple[Patient, ...], model: Model, tmp_path: Path) -> None:
    grade(patients[:1], model, tmp_path)
    grade(patients[:2], model, tmp_path, ids=True)
    contents = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [content.get("patient") for content in contents] == [None, patients[0].id, patients[1].id]
    assert contents[0]["inputs"] == contents[1]["inputs"] != contents[2]["inputs"]
    assert verify_audit(tmp_path / "audit.jsonl").lines == 3


@pytest.mark.parametrize("line", range(5))
def test_an_altered_byte_is_found_and_named(file: Path, line: int) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    for place in (0, 40, len(lines[line]) - 80, len(lines[line]) - 10, len(lines[line]) - 1):
        changed = bytearray(lines[line])
        changed[place] ^= 1
        file.write_bytes(b"".join([*lines[:line], bytes(changed), *lines[line + 1 :]]))
        with pytest.raises(GradeError, match=rf"line {line + 1} was altered"):
            verify_audit(file)


def test_removed_moved_and_added_lines_are_found(file: Path) -> None:
    a, b, c, d, e = file.read_bytes().splitlines(keepends=True)
    for lines, number in (((b, c, d, e), 1), ((a, c, d, e), 2), ((a, c, b, d, e), 2), ((a, a, b), 2)):
        file.write_bytes(b"".join(lines))
        with pytest.raises(GradeError, match=f"before line {number} a line was removed, added or moved"):
            verify_audit(file)


def test_lines_missing_at_the_end_are_found_by_the_results(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    known = {"lines": 5, "last": verify_audit(file).last}
    file.with_name("predictions.json").write_text(json.dumps({"audit": known}))
    assert verify_audit(file).lines == 5
    file.write_bytes(b"".join(lines[:4]))
    with pytest.raises(GradeError, match=r"knows 5 lines .* there are 4"):
        verify_audit(file)
    file.unlink()
    for number in range(6):  # all made anew
        Audit(file.parent, {}, "abc", ids=False).add(record(number))
    with pytest.raises(GradeError, match="all were written again"):
        verify_audit(file)


def test_a_half_line_is_cut_off_and_an_altered_one_is_not_continued(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])  # a call died while it wrote
    with pytest.raises(GradeError, match="line 5 was altered or cut off"):
        verify_audit(file)
    assert Audit(file.parent, {}, "abc", ids=False).add(record(6)).lines == 5
    assert verify_audit(file).lines == 5
    file.write_bytes(whole[:-10] + b"x" + whole[-9:])
    with pytest.raises(GradeError, match="was altered; move the file away"):
        Audit(file.parent, {}, "abc", ids=False).add(record(6))
    file.write_bytes(b'{"half')
    assert Audit(file.parent, {}, "abc", ids=False).add(record(6)).lines == 1
    assert verify_audit(file).lines == 1


def test_a_full_disk_leaves_no_half_line(file: Path) -> None:
    whole = file.read_bytes()

    def add() -> None:
        limit = len(whole) + 300  # a line is longer
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        Audit(file.parent, {}, "abc", ids=False).add(record(6))

    process = Forked((), program=add)
    _, err = process.communicate(60)
    assert process.returncode == 1
    assert "cannot be written: File too large" in err
    assert file.read_bytes() == whole


def test_several_writers_make_one_chain(tmp_path: Path) -> None:
    def write(number: int) -> None:
        Audit(tmp_path, {}, "abc", ids=False).add(record(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(64)))
    assert verify_audit(tmp_path / "audit.jsonl").lines == 64


def test_inputs_by_hand(patients: tuple[Patient, ...], tmp_path: Path) -> None:
    files = match_modalities(patients[0].folder).modalities
    text = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()} {name}\n" for name, file in files.items())
    assert hash_inputs(patients[0]) == hashlib.sha256(text.encode()).hexdigest()
    for name, file in files.items():
        (tmp_path / f"x_{name}.nii.gz").symlink_to(file)
    assert hash_inputs(Patient("x", tmp_path)) == hash_inputs(patients[0])  # names do not count
    (tmp_path / "x_t2.nii.gz").unlink()
    assert hash_inputs(Patient("x", tmp_path)) == ""
    os.mkfifo(tmp_path / "x_t2.nii.gz")
    assert hash_inputs(Patient("x", tmp_path)) == ""  # and does not wait for a writer


def test_inputs_are_those_that_were_read(patients: tuple[Patient, ...]) -> None:
    """What was handed over counts, not what is on disk; a file that nobody read is read."""
    files = match_modalities(patients[0].folder).modalities
    inputs, expected = Inputs(), ""
    for name, file in files.items():
        content = b"other" if name == "t1" else file.read_bytes()
        if name != "t2":
            inputs.add(name, content)
        expected += f"{hashlib.sha256(content).hexdigest()} {name}\n"
    assert inputs.digest(patients[0]) == hashlib.sha256(expected.encode()).hexdigest()


def sealed(body: bytes) -> bytes:
    return body + b', "hash": "' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[1]", b""])
def test_a_sealed_line_of_other_things_is_told(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "audit.jsonl").write_bytes(sealed(body))
    with pytest.raises(GradeError, match="before line 1 a line was removed, added or moved"):
        verify_audit(tmp_path / "audit.jsonl")


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    pipe, device, long = tmp_path / "pipe", tmp_path / "device", tmp_path / "long"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for place in (pipe, device):
        with pytest.raises(GradeError, match="cannot be read: it is not a plain file"):
            verify_audit(place)
    with long.open("wb") as stream:
        stream.truncate(2**33)  # it takes no disk, and would not fit into memory
    with pytest.raises(GradeError, match="line 1 was altered or cut off"):
        verify_audit(long)


def test_results_that_are_nested_too_deep_are_told(file: Path) -> None:
    file.with_name("predictions.json").write_text("[" * 100_000)
    with pytest.raises(GradeError, match=r"predictions\.json cannot be read: it is nested too deep"):
        verify_audit(file)
