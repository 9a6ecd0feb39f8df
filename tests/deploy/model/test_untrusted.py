"""A model folder made by a stranger: refused with a sentence before anything in it is opened."""

from __future__ import annotations

import io
import os
import random
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.model.folder import Model, open_model
from deploy.model.graph_check import check_graph
from deploy.model.revoked import refuse_revoked
from deploy.model.untrusted import parse_json, read_arrays, read_plain
from deploy.verify import verify_model
from tests.campaign.models import KINDS
from toolkit.errors import GradeError, ModelError


def packed(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_plain(tmp_path / "file") == b"12345"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    for name, sentence in (("pipe", "not a regular file"), ("link", "it is a link"), ("gone", "No such file")):
        with pytest.raises(ModelError, match=sentence):
            read_plain(tmp_path / name)
    with pytest.raises(ModelError, match="has 5 bytes, more than 4"):
        read_plain(tmp_path / "file", most=4)


@pytest.mark.parametrize("text", [b"[" * 10**6, b'{"a": NaN}', b"{", b"\xff"])
def test_json_that_is_none(text: bytes) -> None:
    with pytest.raises(ModelError, match=r"manifest is (nested too deep|no valid JSON)"):
        parse_json(text, "manifest")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04", "not a zip file"),
        (packed(b=np.zeros(3)), "a.npy"),
        (packed(a=np.zeros(4)), "not float of 3"),
        (packed(a=np.zeros((3, 1))), "not float of 3"),
        (packed(a=np.array([1, 2, 3])), "int64"),
        (packed(a=np.array([1, np.nan, 3])), "not finite"),
        (packed(a=np.array([{}, 1, 2], dtype=object)), "object"),
    ],
)
def test_arrays_that_are_none(content: bytes, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        read_arrays(content, {"a": (3,)}, "limits.npz")


def test_arrays_read_back_whatever_their_float() -> None:
    found = read_arrays(packed(a=np.float32([1, 2]), b=np.float64(3)), {"a": (None,), "b": ()}, "limits.npz")
    assert found["a"].tolist() == [1, 2]
    assert float(found["b"]) == 3


def test_a_graph_may_only_do_what_exports_do(model: Model) -> None:
    for precision in ("fp32", "fp16"):
        check_graph(model.onnx(precision), model.manifest, "model.onnx")  # type: ignore[arg-type]
    graph = onnx.load_from_string(model.onnx("fp32"))
    graph.graph.node.append(onnx.helper.make_node("Tile", ["scan", "scan"], ["waste"]))
    with pytest.raises(ModelError, match="uses the operator Tile, which no export writes"):
        check_graph(graph.SerializeToString(), model.manifest, "model.onnx")
    other = model.manifest.model_copy(update={"classes": ("LGG", "HGG", "none")})
    with pytest.raises(ModelError, match=r"logits has the shape .*, not \(batch, 3\)"):
        check_graph(model.onnx("fp32"), other, "model.onnx")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_altered_models_are_refused_with_a_sentence(name: str, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder, copy_function=os.link)
    KINDS[name](folder, random.Random(1))
    wrong = [check for check in verify_model(folder, None) if not check.passed]
    assert wrong
    assert all("\n" not in check.sentence.strip() for check in wrong)


def test_a_model_that_was_replaced(exported: Path, tmp_path: Path) -> None:
    model, file = open_model(exported), tmp_path / "revoked.txt"
    day = date.fromisoformat(model.manifest.created[:10])
    file.write_text(f"# replaced in spring\n\n{'0' * 64}\n")
    refuse_revoked(model, day, file)
    with pytest.raises(ModelError, match="was exported on"):
        refuse_revoked(model, date(2999, 1, 1), None)
    file.write_text(f"{model.short}  # too sure of itself\n")
    with pytest.raises(ModelError, match="was revoked by"):
        refuse_revoked(model, None, file)
    file.write_text("model-1\n")
    with pytest.raises(GradeError, match=r"line 1: 'model-1' is no fingerprint"):
        refuse_revoked(model, None, file)
