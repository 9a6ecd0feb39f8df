"""Columns are taken for what their headers and cells say, never by position or because numbers match."""

import pytest

from toolkit.config import LabelTable
from toolkit.data.tables.columns import meaning
from toolkit.data.tables.rows import read_rows
from toolkit.data.tables.words import missing, names_grades, names_ids, names_sites, one_spelling
from toolkit.errors import CohortError


def read(tmp_path, text, **columns):
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf-8")
    return read_rows(LabelTable(file=file, **columns))


@pytest.mark.parametrize(
    "header",
    [
        *("ID", "id", "Patient", "patient_id", "PatientID", "patientId", "Subject", "SubjectID", "Case ID", "Case No."),
        *("participant_id", "Participant", "Name", "Patient Name", "BraTS21ID", "BraTS_2018_subject_ID", "BraTS2023"),
        *("TCGA_TCIA_subject_ID", "bcr_patient_barcode", "Patient code", "Pseudonym", "UPENN ID", "Image ID"),
    ],
)
def test_headers_of_ids(header):
    assert names_ids(header)


@pytest.mark.parametrize(
    "header",
    [
        *("Patient Age", "Patient's age", "Age", "Patient Sex", "Patient weight", "Patient group", "Patient status"),
        *("Case type", "Number of lesions", "Site ID", "Scanner ID", "Hospital name", "File name", "Institution Name"),
        *("Grade", "Subject age at MRI", "Days from diagnosis", "Patient Date of Birth", "Series ID", "", "Unnamed: 0"),
    ],
)
def test_headers_of_something_else(header):
    assert not names_ids(header)


def test_headers_of_grades_and_sites():
    for header in ("Grade", "grade", "WHO CNS Grade", "WHO_grade", "Tumor Grade", "neoplasm_histologic_grade", "label"):
        assert names_grades(header) is not None, header
    for header in ("Grade date", "Radiologist grade confidence", "Upgrade", "Class size", "Gradient"):
        assert names_grades(header) is None, header
    for header in ("Site", "Centre", "site_id", "Institution", "Site No (represents the originating institution)"):
        assert names_sites(header), header
    for header in ("Tumor Site", "Primary site", "Site of lesion", "Hospital stay (days)"):
        assert not names_sites(header), header


@pytest.mark.parametrize(
    ("value", "grade"),
    [
        *(("HGG", 1), ("lgg", 0), ("4", 1), ("3.0", 0), ("2,0", 0), ("WHO grade IV", 1), ("Grade II", 0), ("Ⅳ", 1)),
        *(("gbm", 1), ("43", None), ("1", None), ("0.4", None), ("benign", None), ("2-3", None), ("HGG/LGG", None)),
    ],
)
def test_what_a_grade_means(tmp_path, value, grade):
    assert meaning(value, LabelTable(file=tmp_path)) == grade


@pytest.mark.parametrize(
    "text", ["", "NA", "n/a", "N.A.", "unknown", "-", "--", "None", "NaN", "?", "[Not Available]", "-1"]
)
def test_words_for_nothing(text):
    assert missing(text)
    assert one_spelling([text, "A"]) == (None, "A")


def test_a_site_has_one_spelling():
    sites = [
        "Site A",
        "site a",
        "SITE-A",
        "Site A",
        "St. Mary's",
        "St Marys",
        None,
        "Site 1-1",
        "Site 11",
        "Müller",
        "MÜLLER",
    ]
    assert one_spelling(sites) == (
        *("Site A",) * 4,
        *("St. Mary's",) * 2,
        *(None, "Site 1-1", "Site 11"),
        *("Müller",) * 2,
    )


def test_an_age_is_no_id(tmp_path):
    found = read(tmp_path, "Patient ID,Patient Age,Grade\n45,61,4\n52,45,2\n")
    assert [row.ids for row in found.rows] == [{0: "45"}, {0: "52"}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Patient Age,Grade\n45,4\n", "has no column of ids among Patient Age, Grade"),
        (",Grade\n45,4\n", "no column of ids"),
        (
            "patient,Grade,WHO grade\na,LGG,2\nb,HGG,3\n",
            "line 3 .* column 'Grade' says HGG and column 'WHO grade' says 3",
        ),
        ("patient,grade,grade\na,LGG,HGG\n", "column 'grade' says LGG and column 'grade' says HGG"),
        (
            "patient,grade,site,centre\na,2,X,1\nb,4,X,2\n",
            "two columns of sites that contradict .* 'site' and 'centre'",
        ),
        ("patient,grade,site\na,2,X\na,2,Y\n", "patient a has different sites in lines 2, 3"),
        ("patient,grade\nBraTS-GLI-00001-000,2\nBraTS-GLI-00001-001,4\n", "different grades in lines 2, 3"),
        ("ID,BraTS2018\nx,Brats18_2013_1_1\n", "no column of grades"),
    ],
)
def test_contradictions_are_named(tmp_path, text, reason):
    with pytest.raises(CohortError, match=reason):
        read(tmp_path, text)


def test_a_column_named_twice_is_not_guessed(tmp_path):
    with pytest.raises(CohortError, match="has 2 columns 'grade'"):
        read(tmp_path, "patient,grade,grade\na,LGG,LGG\n", grade="grade")


def test_columns_that_agree_are_fine(tmp_path):
    found = read(
        tmp_path, "patient,Grade,WHO grade,class,site,centre\na,LGG,2,odd,X,1\nb,HGG,4,even,Y,2\nc,HGG,,odd,x,1\n"
    )
    assert [(row.value, row.site) for row in found.rows] == [("LGG", "X"), ("HGG", "Y"), ("HGG", "x")]


def test_a_grade_without_an_id_is_told(tmp_path):
    found = read(tmp_path, "patient,grade\na,LGG\n,HGG\nNA,HGG\n,\n")
    assert [row.ids for row in found.rows] == [{0: "a"}]
    assert found.notes == ("2 rows of the table t.csv have a grade and no id: lines 3, 4.",)
