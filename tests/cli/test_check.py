"""`grade check` and the leakage guard, as a user meets them."""

import csv
import json
import re
import shutil

import pytest

from tests.toolkit.data.faults import CASES
from toolkit.data.patients import printable


def test_cohort(project, grade):
    code, out, err = grade("check", "cohort", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert len(facts["patients"]) == 12
    assert facts["cohort"]["LGG"] == facts["cohort"]["HGG"] == 6
    assert facts["patients"][0]["files"]["t1ce"].endswith("t1ce.nii.gz")
    assert facts["same_images"] == []

    code, out, err = grade("check", "cohort")
    assert code == 0, err
    assert "12 patients" in out
    assert "12 can be graded, 0 refused" in err


def test_one_refused_and_all_refused(project, grade):
    (project / "cohort" / "LGG" / "p00" / "p00_t1.nii.gz").write_bytes(b"")
    code, out, _ = grade("check", "cohort")
    assert code == 3
    assert "is empty (0 bytes)" in " ".join(out.split())
    code, _, _ = grade("check", "cohort/LGG/p00")
    assert code == 1


@pytest.mark.parametrize("rows", ["", "p1,\n"])
def test_a_table_that_gives_no_grade(tmp_path, grade, rows):
    (tmp_path / "labels.csv").write_text(f"patient,grade\n{rows}")
    for more in ((), ("--json",)):
        code, out, err = grade("check", tmp_path / "labels.csv", *more)
        assert (code, out) == (1, "")
        assert "gives no grade" in " ".join(err.split())


def as_expected(folder, entries):
    """Every kind of fault has the outcome and the reason that its table says."""
    found = {entry["folder"]: entry for entry in entries}
    with (folder / "expected.csv").open(newline="", encoding="utf-8") as stream:
        expected = list(csv.DictReader(stream))
    assert len(expected) == sum(map(len, CASES.values())) > 500
    for row in expected:
        entry = found[printable(f"{folder}/{row['folder']}")]
        assert entry["refused"] == (row["outcome"] == "refused"), (row, entry)
        assert re.search(row["reason"], entry["reason"]), (row, entry)


def test_every_fault_in_one_check(faults, grade):
    code, out, err = grade("check", faults, "--json")
    assert code == 3, err
    as_expected(faults, json.loads(out)["patients"])


@pytest.mark.slow
def test_every_fault_in_one_prediction(faults, tmp_path, made, grade):
    """None ends the batch, and every good one is graded."""
    code, _, err = grade("predict", faults, "--model", made / "model", "--out", tmp_path / "results")
    assert code == 3, err
    patients = json.loads((tmp_path / "results" / "predictions.json").read_text())["patients"]
    as_expected(faults, [{**patient, "refused": patient["grade"] is None} for patient in patients])


def test_table_of_ids_alone(tmp_path, grade):
    """The site-only grader, worked out by hand: site A has 1 HGG of 4, site B 2 of 2."""
    rows = ["LGG,A1,A", "LGG,A2,A", "LGG,A3,A", "HGG,A4,A", "HGG,B1,B", "HGG,B2,B", "NA,B3,B"]
    file = tmp_path / "table.csv"
    file.write_text("\n".join(["Grade,ID,Site", *rows]))
    code, out, err = grade("check", file, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["rows"] == 7
    # AUC: of 9 pairs, HGG of B beats all 3 LGG (6 pairs), the HGG of A ties with them (3 halves).
    assert facts["cohort"]["site_only"]["auc"] == pytest.approx(7.5 / 9)
    assert facts["cohort"]["site_only"]["accuracy"] == pytest.approx(5 / 6)
    _, _, err = grade("check", file)
    assert "may be scanner recognition" in " ".join(err.split())


def test_unknown_column_is_named(tmp_path, grade):
    file = tmp_path / "table.csv"
    file.write_text("Grade,ID\nLGG,a\n")
    code, _, err = grade("check", file, "--patient-column", "Patient")
    assert code == 1
    assert "no column 'Patient'; its columns: Grade, ID" in err


def test_copied_images_with_another_grade_stop_the_training(project, grade):
    shutil.copytree(project / "cohort" / "HGG" / "p01", project / "cohort" / "LGG" / "copy")
    for command, expected in ((("check", "cohort"), 3), (("train",), 1)):
        code, _, err = grade(*command)
        assert code == expected
        assert "copy and p01 are one person" in " ".join(err.split())


@pytest.mark.slow
def test_copied_images_stay_on_one_side(project, grade):
    for number in range(4):
        shutil.copytree(project / "cohort" / "HGG" / "p01", project / "cohort" / "HGG" / f"copy{number}")
    code, _, err = grade("train", "--set", "training.epochs=1")
    assert code == 0, err
    assert "hold the same images; they stay on one side of the split" in " ".join(err.split())
    with (project / "runs" / "latest" / "split.csv").open(newline="") as stream:
        sides = {row["split"] for row in csv.DictReader(stream) if row["patient"] in ("p01", "copy0", "copy1", "copy2")}
    assert len(sides) == 1
