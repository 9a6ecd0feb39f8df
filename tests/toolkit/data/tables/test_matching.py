"""Ids of a table and folders: exactly, or by a rule that is told."""

import pytest

from toolkit.config import LabelTable
from toolkit.data.labels import read_cohort
from toolkit.errors import CohortError


def cohort(tmp_path, names, text, file="labels.csv"):
    folder = tmp_path / "cohort"
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "x_t1.nii.gz").touch()
    (folder / file).write_text(text)
    return folder


def graded(folder, file=None):
    found = read_cohort(folder, LabelTable(file=folder / file) if file else None)
    return dict(zip((patient.id for patient in found.patients), found.grades, strict=True)), found.notes


def test_p1_is_not_p01(tmp_path):
    folder = cohort(tmp_path, ("P1", "P02", "P03"), "patient,grade\nP01,4\nP02,2\nP03,4\n")
    assert graded(folder) == (
        {"P02": 0, "P03": 1},
        ("1 patients without a known grade are left out: P1.",),
    )


def test_rules_are_told(tmp_path):
    names = ("UCSF-PDGM-0004_nifti", "000808310", "Pat A", "x")
    rows = "UCSF-PDGM-004,4\n808310,2\npat_a,2\nx,4\n"
    found, notes = graded(cohort(tmp_path, names, f"patient,grade\n{rows}"))
    assert found == {"UCSF-PDGM-0004_nifti": 1, "000808310": 0, "Pat A": 0, "x": 1}
    assert notes == (
        "1 ids of the table differ from the folders' in case, separators or `_nifti` alone and were matched: "
        "'pat_a' for Pat A.",
        "2 ids of the table differ from the folders' in leading zeros of a number alone and were matched: "
        "'808310' for 000808310, 'UCSF-PDGM-004' for UCSF-PDGM-0004_nifti.",
    )


def test_a_row_that_is_another_patients_is_not_taken(tmp_path):
    folder = cohort(tmp_path, ("7", "007", "a", "A", "z"), "patient,grade\n7,4\na,2\nz,4\n")
    assert graded(folder)[0] == {"7": 1, "a": 0, "z": 1}


def test_ids_as_printed_and_as_paths(tmp_path):
    names = ("A/000", "B/000", "B/x")
    folder = cohort(tmp_path, names, "patient,grade\nA/000,HGG\nB/000,LGG\nB/x,HGG\n")
    assert graded(folder)[0] == {"A/000": 1, "B/000": 0, "x": 1}


def test_an_escaped_id_is_understood(tmp_path):
    folder = cohort(tmp_path, ("a\x01", "a\\x01", "b"), "patient,grade\na\\x01,2\na\\\\x01,4\nb,2\n")
    assert graded(folder)[0] == {"a\\x01": 0, "a\\\\x01": 1, "b": 0}


@pytest.mark.parametrize(
    ("names", "text", "reason"),
    [
        (("A/1", "B/1"), "patient,grade\n1,HGG\n2,LGG\n", "'1' in line 2 could be A/1 or B/1"),
        (("P 1", "x"), "patient,grade\np-1,HGG\nP_1,LGG\nx,2\n", "'P_1' or 'p-1' in the table could be 'P 1'"),
        (("p-1", "P_1", "x"), "patient,grade\nP 1,HGG\nx,2\n", "'P 1' in the table could be 'P_1' or 'p-1'"),
        (
            ("5", "6"),
            "Patient ID,Case,grade\n5,6,HGG\n6,5,LGG\n",
            "patient 5 is line 2 by the column 'Patient ID' and line 3 by the column 'Case'",
        ),
    ],
)
def test_what_could_be_two_is_refused(tmp_path, names, text, reason):
    with pytest.raises(CohortError, match=reason):
        graded(cohort(tmp_path, names, text))


def test_a_folder_named_after_the_other_grade(tmp_path):
    folder = cohort(tmp_path, ("HGG/a", "LGG/b"), "patient,grade\na,LGG\nb,LGG\n")
    with pytest.raises(CohortError, match="patient a is LGG in the table and below a folder HGG"):
        graded(folder, "labels.csv")
    (folder / "labels.csv").write_text("patient,grade\na,4\nb,4\n")
    (folder / "c").mkdir()
    (folder / "c" / "x_t1.nii").touch()
    (folder / "labels.csv").write_text("patient,grade\na,4\nb,4\nc,2\n")
    found, notes = graded(folder, "labels.csv")
    assert found == {"a": 1, "b": 1, "c": 0}
    assert notes == (
        "1 patients have another grade by the table than by the folder they are in, and the table counts: b.",
    )


def test_bids_participants(tmp_path):
    names = ("sub-01/ses-1/anat", "sub-01/ses-2/anat", "sub-02/anat", "derivatives/x/sub-02/anat", "sub-03/anat")
    rows = "sub-01\t61\t4\tSite A\nsub-02\t45\t3\tsite a\nsub-03\tn/a\tn/a\tn/a\n"
    folder = cohort(tmp_path, names, f"participant_id\tage\twho_grade\tsite\n{rows}", "participants.tsv")
    found = read_cohort(folder, None)
    assert [patient.id for patient in found.patients] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert found.grades == (1, 1, 0)
    assert found.sites == ("Site A",) * 3


def test_participants_without_grades_are_no_table(tmp_path):
    folder = cohort(tmp_path, ("sub-01/anat",), "participant_id\tage\nsub-01\t61\n", "participants.tsv")
    with pytest.raises(CohortError, match="are unknown"):
        read_cohort(folder, None)
