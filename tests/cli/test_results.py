"""`grade predict` into one results folder, call after call, as a user types it."""

import csv
import json
import shutil

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def people(made, tmp_path, monkeypatch):
    """Five patients; the model is `model`, the working folder is new."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(made / "model")
    found = []
    for source in sorted((made / "cohort").glob("*/*"))[:5]:
        shutil.copytree(source, tmp_path / "in" / source.name)
        found.append(tmp_path / "in" / source.name)
    return found


def rows(results):
    with (results / "predictions.csv").open(newline="") as stream:
        return {row["patient"]: row for row in csv.DictReader(stream)}


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_graded_patient_has_a_page(people, grade, tmp_path):
    """One, two and five patients, and a refused one last."""
    (people[4] / f"{people[4].name}_t2.nii.gz").write_bytes(b"")
    for count, refused in ((1, 0), (2, 0), (5, 1)):
        out = tmp_path / f"out{count}"
        code, _, err = grade("predict", *people[:count], "--report", "--out", out)
        assert code == (3 if refused else 0), err
        graded = {name for name, row in rows(out).items() if row["status"] == "graded"}
        assert len(graded) == count - refused
        assert {file.stem for file in (out / "patients").iterdir()} == graded
        for folder in (out / "evidence", out / "evidence" / "own-grid"):
            assert {file.name.removesuffix(".nii.gz") for file in folder.glob("*.nii.gz")} == graded
        index = (out / "report.html").read_text()
        assert all(f'href="patients/{name}.html"' in index for name in graded)
        assert all(path.name in index for path in people[:count])


def test_pages_that_are_missing_are_made_by_a_resumed_call(people, grade, tmp_path):
    out = tmp_path / "out"
    assert grade("predict", *people[:2], "--out", out)[0] == 0
    assert not (out / "patients").exists()
    lines = (out / "audit.jsonl").read_text()
    code, _, err = grade("predict", *people[:3], "--out", out, "--report", "--resume")
    assert code == 0, err
    assert {file.stem for file in (out / "patients").iterdir()} == {path.name for path in people[:3]}
    assert (out / "audit.jsonl").read_text().startswith(lines)
    assert len((out / "audit.jsonl").read_text().splitlines()) == 3  # a page is no new grading


def test_a_call_that_cannot_begin_changes_no_byte(people, grade, tmp_path, made):
    out = tmp_path / "out"
    code = grade("predict", people[0], "--out", out, "--device", "cuda:7")[0]
    assert code == 1
    assert not out.exists()
    assert grade("predict", people[0], "--out", out)[0] == 0
    before = files(out)
    broken = tmp_path / "broken"
    shutil.copytree(made / "model", broken)
    (broken / "model.onnx").write_bytes(b"not a graph")
    for words in (
        ("--runtime", "tensort"),
        ("--runtime", "tensorrt"),
        ("--device", "cuda:7"),
        ("--model", broken),
    ):
        assert grade("predict", people[0], "--out", out, *words)[0] in (1, 2)
        assert files(out) == before, words


def test_others_stay_and_changed_images_are_noticed(people, grade, tmp_path):
    out = tmp_path / "out"
    assert grade("predict", *people[:2], "--out", out)[0] == 0
    before = files(out)
    code, _, err = grade("predict", people[2], "--out", out)
    assert code == 1
    assert "--resume" in err
    assert "--overwrite" in err
    assert files(out) == before
    assert grade("predict", people[2], "--out", out, "--resume")[0] == 0
    assert list(rows(out)) == [path.name for path in people[:3]]
    assert grade("verify", "--audit", out / "audit.jsonl")[0] == 0

    for file in people[0].iterdir():
        other = people[3] / file.name.replace(people[0].name, people[3].name)
        shutil.copy(other, file)
    code, _, err = grade("predict", *people[:3], "--out", out, "--resume")
    assert code == 0, err
    assert f"images of {people[0].name} changed" in " ".join(err.split())
    records = json.loads((out / "predictions.json").read_text())["patients"]
    assert [record["patient"] for record in records] == [path.name for path in people[:3]]
    assert len((out / "audit.jsonl").read_text().splitlines()) == 4

    assert grade("predict", people[4], "--out", out, "--overwrite")[0] == 0
    assert list(rows(out)) == [people[4].name]


def test_words_without_effect_are_refused(people, grade):
    for words in (("--resume", "--overwrite"), ("--dry-run", "--resume"), ("--dry-run", "--overwrite")):
        assert grade("predict", people[0], *words)[0] == 2


def test_pages_of_an_earlier_prediction(people, grade, tmp_path):
    """The last patient is refused; of one the images changed, of one they are gone: no answer changes."""
    out = tmp_path / "out"
    (people[3] / f"{people[3].name}_t2.nii.gz").write_bytes(b"")
    assert grade("predict", *people[:4], "--out", out)[0] == 3
    before = {name: (out / name).read_bytes() for name in ("records.jsonl", "predictions.csv", "audit.jsonl")}
    code, _, err = grade("report", out, "--single-file")
    assert code == 0, err
    names = [path.name for path in people[:3]]
    assert sorted(file.stem for file in (out / "patients").iterdir()) == sorted(names)
    assert all((out / "evidence" / "own-grid" / f"{name}.nii.gz").is_file() for name in names)
    index = (out / "report.html").read_text()
    assert all(f'href="patients/{name}.html"' in index for name in names)
    assert people[3].name in index
    assert 'id="niivue"' in (out / "patients" / f"{names[0]}.html").read_text()

    shutil.copy(people[4] / f"{people[4].name}_t1.nii.gz", people[0] / f"{people[0].name}_t1.nii.gz")
    shutil.rmtree(people[1])
    code, _, err = grade("report", out)
    assert code == 3
    told = " ".join(err.split())
    assert f"{names[0]} has no new page: the images are not those that were graded." in told
    assert f"{names[1]} has no new page" in told
    assert "1 page written" in told
    assert {name: (out / name).read_bytes() for name in before} == before


def test_report_says_what_has_no_effect(made, grade, monkeypatch):
    monkeypatch.chdir(made)
    code, _, err = grade("report", "runs/tiny", "--single-file")
    assert code == 2
    assert "--single-file has no effect on the page of a run" in " ".join(err.split())
    code, _, err = grade("predict", "cohort", "--single-file")
    assert code == 2
    assert "--report" in err
