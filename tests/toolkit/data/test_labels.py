import openpyxl
import pytest

from toolkit.config import LabelTable
from toolkit.data.labels import read_cohort
from toolkit.errors import CohortError


def patients(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name.rsplit('/', 1)[-1]}_t1.nii.gz").touch()
    return folder


def grades(cohort):
    return dict(zip((patient.id for patient in cohort.patients), cohort.grades, strict=True))


def test_brats_2018_folders(tmp_path):
    cohort = read_cohort(patients(tmp_path, "HGG/Brats18_CBICA_AAB_1", "LGG/Brats18_TCIA09_451_1"), None)
    assert grades(cohort) == {"Brats18_CBICA_AAB_1": 1, "Brats18_TCIA09_451_1": 0}
    assert cohort.sites == ("CBICA", "TCIA09")
    assert (
        cohort.labels == "Grades from the names of the folders above the patients: 'LGG' (1) as LGG; 'HGG' (1) as HGG."
    )


def test_name_mapping_of_brats_2019(tmp_path):
    patients(tmp_path, "BraTS19_CBICA_AAB_1", "Brats18_TCIA09_451_1", "Brats17_2013_0_1")
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1\n"
        "LGG,Brats17_TCIA_451_1,Brats18_TCIA09_451_1,NA,BraTS19_TCIA09_451_1\n"
        "LGG,Brats17_2013_0_1,NA,NA,NA\n"
    )
    assert grades(read_cohort(tmp_path, None)) == {
        "BraTS19_CBICA_AAB_1": 1,
        "Brats18_TCIA09_451_1": 0,
        "Brats17_2013_0_1": 0,
    }


def test_who_grades_of_ucsf_pdgm_and_other_digits(tmp_path):
    patients(tmp_path, "UCSF-PDGM-0004_nifti", "UCSF-PDGM-0005_nifti", "UCSF-PDGM-0006_nifti")
    (tmp_path / "labels.csv").write_bytes(
        b"\xef\xbb\xbfID,Sex,WHO CNS Grade\r\nUCSF-PDGM-004,M,4\r\nUCSF-PDGM-005,F,3\r\nUCSF-PDGM-006,F,2\r\n"
    )
    cohort = read_cohort(tmp_path, None)
    assert list(grades(cohort).values()) == [1, 0, 0]
    assert cohort.labels == "Grades from the table labels.csv: '2' (1), '3' (1) as LGG; '4' (1) as HGG."
    assert cohort.select([0]).joined(cohort).labels == cohort.labels


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a;HGG\nb;LGG\n", None),
        ("a;4\nb;2\n", None),
        ("a;2\nb;2\n", "labels.csv next to them has others for 1 patients"),
        ("a;what\nb;2\n", "labels.csv next to them is left out: "),
    ],
)
def test_a_table_beside_folders_that_have_the_grades(tmp_path, rows, said):
    patients(tmp_path, "HGG/a", "LGG/b")
    (tmp_path / "labels.csv").write_text("patient;grade\n" + rows)
    cohort = read_cohort(tmp_path, None)
    assert grades(cohort) == {"a": 1, "b": 0}
    assert cohort.labels.startswith("Grades from the names of the folders above the patients: ")
    assert len(cohort.notes) == (said is not None)
    assert (said or "") in " ".join(cohort.notes)
    (tmp_path / "labels.csv").write_text("patient;grade\na;LGG\nb;LGG\n")
    with pytest.raises(CohortError, match="patient a is LGG in the table and below a folder HGG"):
        read_cohort(tmp_path, None)


def test_unknown_grades_are_left_out_by_name(tmp_path):
    patients(tmp_path, "a", "b", "c", "d", "e")
    (tmp_path / "labels.csv").write_text("patient;grade;site\na;HGG;X\nb;LGG;Y\nc;NA;\nd;-1;\n")
    cohort = read_cohort(tmp_path, None)
    assert grades(cohort) == {"a": 1, "b": 0}
    assert cohort.sites == ("X", "Y")
    assert cohort.notes == ("3 patients without a known grade are left out: c, d, e.",)


def test_no_break_space_and_leading_zeros(tmp_path):
    patients(tmp_path, "000808310", "000808311")
    (tmp_path / "labels.csv").write_text(
        "patient,grade\N{NO-BREAK SPACE}\n808310,\N{NO-BREAK SPACE}HGG\n000808311,LGG \n"
    )
    assert grades(read_cohort(tmp_path, None)) == {"000808310": 1, "000808311": 0}


def test_excel_with_columns_and_values_named(tmp_path):
    patients(tmp_path, "EGD-0001", "EGD-0002")
    book = openpyxl.Workbook()
    for row in (["Subject", "Histology", "Klinik"], ["EGD-0001", "astro", "N"], ["EGD-0002", "gbm", "N"]):
        book.active.append(row)
    book.save(tmp_path / "Genetic.xlsx")
    table = LabelTable(
        file=tmp_path / "Genetic.xlsx",
        patient="Subject",
        grade="Histology",
        site="Klinik",
        lgg=("astro",),
        hgg=("gbm",),
    )
    cohort = read_cohort(tmp_path, table)
    assert grades(cohort) == {"EGD-0001": 0, "EGD-0002": 1}
    assert cohort.sites == ("N", "N")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("patient,grade\na,HGG\nb,LGG\na,LGG\n", "patient a has different grades in lines 2, 4"),
        ("patient,grade\na,HGG\nb,benign\n", "line 3: grade 'benign' is neither LGG"),
        ("patient,age\na,50\n", "no column of grades among patient, age"),
        ("patient,grade\na,HGG\nb,HGG\n", "all 2 patients .* are HGG; LGG is needed too"),
        ("patient,grade\nx,HGG\n", "none of the 2 patients"),
        ("", "is empty"),
    ],
)
def test_refused_tables(tmp_path, text, reason):
    patients(tmp_path, "a", "b")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(CohortError, match=reason):
        read_cohort(tmp_path, None)


def test_no_labels_at_all(tmp_path):
    with pytest.raises(CohortError, match=r"grades below .* are unknown"):
        read_cohort(patients(tmp_path, "a", "b"), None)


def test_unreadable_tables(tmp_path):
    patients(tmp_path, "a", "b")
    (tmp_path / "latin.csv").write_bytes("patient,grade\nM\xfcller,HGG\n".encode("latin-1"))
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    for name in ("latin.csv", "broken.xlsx", "absent.csv"):
        with pytest.raises(CohortError, match=name):
            read_cohort(tmp_path, LabelTable(file=tmp_path / name))
