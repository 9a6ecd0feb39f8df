"""verify, sign, --require-signature and the audit, as a user types them."""

import json
import shutil

import pytest

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
    assert "2 of 2 graded patients are for a human" in err

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


def test_wrong_usage(grade):
    assert grade("verify")[0] == 2
    code, _, err = grade("verify", "nowhere")
    assert code == 1
    assert "manifest.json" in err
