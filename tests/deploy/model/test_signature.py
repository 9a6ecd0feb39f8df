"""Signatures, and `verify_model`: whatever is altered is found and named."""

from __future__ import annotations

import base64
import stat
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from deploy.model.folder import file_hashes, open_model, write_manifest
from deploy.model.signature import check_signature, new_key, sign_model
from deploy.verify import verify_model
from toolkit.errors import GradeError, ModelError


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    public = new_key(tmp_path / "key")
    return tmp_path / "key", public


def failed(folder: Path, public: Path | None = None) -> dict[str, str]:
    signed = partial(check_signature, key=public) if public else None
    return {check.name: check.sentence for check in verify_model(folder, signed) if not check.passed}


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_signed_model_passes(folder: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    sign_model(open_model(folder), private)
    assert failed(folder, public) == {}
    assert failed(folder) == {}


def test_the_signature_is_plain_ed25519(folder: Path, keys: tuple[Path, Path]) -> None:
    model = open_model(folder)
    signature = base64.b64decode(sign_model(model, keys[0]).read_bytes())
    key = load_pem_public_key(keys[1].read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(signature, b"grade model " + model.fingerprint.encode())


def test_unsigned_and_foreign(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    model = open_model(folder)
    with pytest.raises(ModelError, match="is not signed"):
        check_signature(model, keys[1])
    sign_model(model, keys[0])
    with pytest.raises(ModelError, match=r"no signature of this model by the owner of .*other\.pub"):
        check_signature(model, new_key(tmp_path / "other"))


def test_a_new_manifest_needs_a_new_signature(folder: Path, keys: tuple[Path, Path]) -> None:
    sign_model(open_model(folder), keys[0])
    manifest = open_model(folder).manifest
    calibration = manifest.calibration.model_copy(update={"threshold": 0.9})
    write_manifest(folder, manifest.model_copy(update={"calibration": calibration}))  # seal and all
    assert failed(folder) == {}
    assert list(failed(folder, keys[1])) == ["manifest.sig"]


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_an_altered_manifest_is_found_without_a_key(folder: Path, name: str) -> None:
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace('"threshold": 0.5', '"threshold": 0.7').replace("  manifest", " manifest"))
    assert "manifest.json or manifest.sha256 was altered" in failed(folder)["manifest.json"]


def test_every_altered_file_is_named(folder: Path, keys: tuple[Path, Path]) -> None:
    sign_model(open_model(folder), keys[0])
    for name in file_hashes(folder):
        before = (folder / name).read_bytes()
        flip_a_bit(folder / name)
        assert list(failed(folder, keys[1])) == [name]
        with pytest.raises(ModelError, match=f"{name} was altered"):
            sign_model(open_model(folder), keys[0])
        (folder / name).write_bytes(before)
    flip_a_bit(folder / "manifest.sig")
    assert list(failed(folder, keys[1])) == ["manifest.sig"]


def test_what_else_is_found(folder: Path) -> None:
    (folder / "notes.txt").write_text("")
    assert "notes.txt" in failed(folder)["folder"]
    (folder / "notes.txt").unlink()
    manifest = open_model(folder).manifest
    write_manifest(
        folder, manifest.model_copy(update={"parity": manifest.parity.model_copy(update={"comparisons": ()})})
    )
    assert "no record of the parity gate" in failed(folder)["parity"]
    (folder / "model.onnx").unlink()
    assert list(failed(folder)) == ["manifest.json"]


def test_keys_that_cannot_be_used(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    model = open_model(folder)
    with pytest.raises(GradeError, match="cannot be made"):
        new_key(private)
    with pytest.raises(GradeError, match="no private key"):
        sign_model(model, public)
    with pytest.raises(GradeError, match="no public key"):
        check_signature(model, private)
    for function in (sign_model, check_signature):
        with pytest.raises(GradeError, match="cannot be read"):
            function(model, tmp_path / "absent")
        with pytest.raises(GradeError, match="cannot be read: it is not a plain file"):
            function(model, Path("/dev/zero"))
