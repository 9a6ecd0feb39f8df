"""`grade phantom` as the README writes it."""

import csv


def test_site_b_writes_its_own_mix_of_grades_and_says_so(grade, tmp_path):
    out = tmp_path / "site-b"
    code, said, _ = grade("phantom", out, "--site", "b", "--patients", 5, "--spacing", 4, "--seed", 1)
    assert code == 0
    assert said.startswith("5 patients in ")
    with (out / "phantom.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["site"] for row in rows] == ["b"] * 5
    assert [row["grade"] for row in rows].count("HGG") == 2
    assert all((out / row["grade"] / row["patient"] / f"{row['patient']}_t1ce.nii.gz").is_file() for row in rows)


def test_an_unknown_site_is_wrong_usage(grade, tmp_path):
    code, _, said = grade("phantom", tmp_path / "out", "--site", "z")
    assert code == 2
    assert "--site" in said
    assert not (tmp_path / "out").exists()
