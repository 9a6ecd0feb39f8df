"""verify, sign, --require-signature and the audit, as a user types them."""

import json
import shutil

import pytest

from deploy.model.folder import open_model
from deploy.model.signature import new_key, sign_model

pytestmark = pytest.mark.slow


def test_signed_graded_verified_tampered(made, grade, tmp_path, monkeypatch):
    for name in ("cohort", "model"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert grade("sign", "key", "--new-key")[0] == 0
    code, _, err = grade("predict", "cohort/HGG/p01", "--require-signature", "key.pub")
    assert code == 1
    assert "is not signed" in err
    assert grade("sign", "key")[0] == 0
    code, out, err = grade("verify", "model", "--require-signature", "key.pub")
    assert code == 0, err
    assert "FAILED" not in out
    code, out, err = grade("predict", "cohort/HGG/p01", "cohort/LGG/p00", "--require-signature", "key.pub")
    assert code == 0, err
    assert "undetermined" in out
    assert "Do not rely on the grade of 2 of 2 graded patients." in err
    assert "Every answer needs a reader." in err

    code, _, err = grade("verify", "--audit", "results/audit.jsonl")
    assert code == 0
    assert "2 lines" in err
    text = (tmp_path / "results" / "audit.jsonl").read_text()
    assert "p01" not in text
    first, second = text.splitlines(keepends=True)
    (tmp_path / "results" / "audit.jsonl").write_text(
        first + second.replace("LGG", "HGG").replace("undeter", "uncerta")
    )
    code, _, err = grade("verify", "--audit", "results/audit.jsonl")
    assert code == 1
    assert "line 2 was altered" in err

    card = tmp_path / "model" / "model_card.md"
    card.write_text(card.read_text().replace("Research use only", "Clinical use"))
    code, out, err = grade("verify", "model")
    assert code == 1
    assert "model_card.md" in err
    assert json.loads(first)["verdict"] == "undetermined"


FILES = (
    "familiarity.npz",
    "manifest.json",
    "manifest.sha256",
    "manifest.sig",
    "model.onnx",
    "model_card.md",
    "model_fp16.onnx",
    "selftest.npz",
    "weights.safetensors",
)


@pytest.fixture(scope="module")
def signed(made, tmp_path_factory):
    """A project with a signed model; a test that damages it mends it."""
    folder = tmp_path_factory.mktemp("signed")
    for name in ("cohort", "model"):
        shutil.copytree(made / name, folder / name)
    new_key(folder / "key")
    sign_model(open_model(folder / "model"), folder / "key")
    return folder


def test_the_files_below_are_all_files(signed):
    assert sorted(path.relative_to(signed / "model").as_posix() for path in (signed / "model").rglob("*")) == [*FILES]


@pytest.mark.parametrize("name", FILES)
def test_one_altered_bit_of_any_file_stops_verify_and_predict(signed, grade, name, tmp_path, monkeypatch):
    monkeypatch.chdir(signed)
    file = signed / "model" / name
    before = file.read_bytes()
    changed = bytearray(before)
    changed[len(changed) // 2] ^= 1
    predict = ("predict", "cohort/HGG/p01", "--out", tmp_path / "results", "--require-signature", "key.pub")
    try:
        file.write_bytes(changed)
        verified, predicted = grade("verify", "model", "--require-signature", "key.pub"), grade(*predict)
    finally:
        file.write_bytes(before)
    for code, out, err in (verified, predicted):
        assert code == 1
        assert name in "".join((out + err).split())  # a table may break a name
        assert "altered" in out + err or "no signature" in out + err or "no valid JSON" in out + err
    assert not (tmp_path / "results").exists()
    if name == FILES[-1]:  # mended, the same words pass
        assert grade("verify", "model", "--require-signature", "key.pub")[0] == grade(*predict)[0] == 0


def test_wrong_usage(grade):
    assert grade("verify")[0] == 2
    code, _, err = grade("verify", "nowhere")
    assert code == 1
    assert "manifest.json" in err
