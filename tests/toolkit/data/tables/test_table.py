"""Files are read whole, or refused with the row."""

import csv
import datetime
import io
import os
import re
import zipfile

import openpyxl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openpyxl.worksheet.dimensions import RowDimension

from toolkit.config import LabelTable
from toolkit.data.tables.columns import choose_table
from toolkit.data.tables.read import read_tables
from toolkit.data.tables.rows import read_rows
from toolkit.data.tables.table import clean
from toolkit.errors import CohortError

ROWS = [("patient", "grade"), *((f"p{n:02d}", 4 if n % 2 else 2) for n in range(12))]


def book_of(rows=ROWS):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    return book


def saved(book, tmp_path, change=lambda xml: xml):
    book.save(tmp_path / "plain.xlsx")
    with zipfile.ZipFile(tmp_path / "plain.xlsx") as old, zipfile.ZipFile(tmp_path / "t.xlsx", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("sheet1.xml") else data)
    return LabelTable(file=tmp_path / "t.xlsx")


def written(tmp_path, content, name="t.csv"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return LabelTable(file=tmp_path / name)


def ids(labels):
    return [next(iter(row.ids.values())) for row in read_rows(labels).rows]


ALL = [f"p{n:02d}" for n in range(12)]
TEXT = "".join(f"{name},{grade}\n" for name, grade in ROWS)


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-32"),
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        "sep=;\r\n" + TEXT.replace(",", ";"),
        "\n\n" + TEXT.replace("\n", "\n,\n"),
        TEXT.replace(",", ",\N{LINE SEPARATOR}").replace("p", "\N{ZERO WIDTH SPACE}p"),
        re.sub(r"(\w+),(\w+)", r'"\1","\2"', TEXT),
        TEXT.replace(",2", ';"2,0"').replace(",4", ";4,0").replace(",", ";", 1),
    ],
    ids=str,
)
def test_text_in_many_forms(tmp_path, content):
    assert ids(written(tmp_path, content)) == ALL


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TEXT.replace("p03", '"p03'), "line 5 on: .*quote"),
        (TEXT.replace("p03", '"p03').replace("p07,4", 'p07,4"'), "line 5: a cell in quotes holds lines that look like"),
        (TEXT.replace("p03,4", 'p03,"4').replace("p07", '"p07'), "line 5"),
        (TEXT.replace("p03,4", "p03,4,2"), "line 5 .* has 3 cells and the header 2"),
        (TEXT.replace("p03", "p" * 200_000), "line 5 on: field larger than field limit"),
        (TEXT.replace("p03", "p\0"), "NUL character in line 5"),
        (TEXT.encode("utf-16")[2:], "NUL"),
        (TEXT.replace("p03", "pü").encode("latin-1"), "not UTF-8 text: line 5 holds the byte 0xfc"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "old or a locked Excel file"),
        (b"PK\x03\x04" + bytes(600), "cannot be read as a workbook"),
        (b"\n \n", "is empty"),
    ],
    ids=str,
)
def test_text_that_is_refused(tmp_path, content, reason):
    with pytest.raises(CohortError, match=reason):
        read_rows(written(tmp_path, content))


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", tmp_path, tmp_path / "absent.csv", tmp_path / "a\0b"):
        with pytest.raises(CohortError):
            read_tables(path)


@pytest.mark.parametrize("area", [b"A1:B6", b"A1", b"A1:XFD1048576", b"C3:D4"])
def test_what_the_sheet_says_of_its_size_is_not_asked(tmp_path, area):
    said = b'<dimension ref="%s"' % area
    labels = saved(book_of(), tmp_path, lambda xml: re.sub(rb'<dimension ref="[^"]*"', said, xml))
    assert ids(labels) == ALL


def test_a_workbook_under_another_name(tmp_path):
    book_of().save(tmp_path / "b.xlsx")
    assert ids(written(tmp_path, (tmp_path / "b.xlsx").read_bytes())) == ALL


def test_numbers_as_they_are_meant(tmp_path):
    rows = [("patient", "grade"), (7.0, 3.0), (8, "4.0"), ("0009", "IV")]
    found = read_rows(saved(book_of(rows), tmp_path))
    wanted = [("7", "3", 0), ("8", "4.0", 1), ("0009", "IV", 1)]
    assert [(row.ids[0], row.value, found.grade(row)) for row in found.rows] == wanted


@pytest.mark.parametrize(
    ("cell", "value", "reason"),
    [
        ("A4", datetime.datetime(2020, 1, 5), "cell A4 is a date"),
        ("B4", datetime.date(2026, 3, 2), "cell B4 is a date"),
        ("A4", 12345678901234567, "cell A4 is the number 1.23456.*, of which a spreadsheet keeps 15 digits"),
        ("B4", "=1+3", "cell B4 holds a formula without a stored value"),
        ("A4", "=B1", "cell A4 holds a formula without a stored value"),
        ("B4", "#N/A", "cell B4 holds the error #N/A"),
        ("B4", "benign", None),
        ("A1048576", "stray", "reaches to cell B1048576"),
    ],
)
def test_cells_that_say_nothing_certain(tmp_path, cell, value, reason):
    book = book_of()
    book.active[cell] = value
    labels = saved(book, tmp_path)
    if reason is None:
        found = read_rows(labels)
        with pytest.raises(CohortError, match="row 4: grade 'benign' is neither"):
            found.grade(found.rows[2])
        return
    with pytest.raises(CohortError, match=reason):
        read_rows(labels)


def prefixed(xml):
    return re.sub(rb"<(/?)(?=[a-zA-Z])", rb"<\1x:", xml.replace(b'xmlns="http', b'xmlns:x="http'))


def in_utf_16(xml):
    return ('<?xml version="1.0" encoding="UTF-16"?>' + re.sub(r"^<\?xml.*?\?>", "", xml.decode())).encode("utf-16")


@pytest.mark.parametrize("rewritten", [prefixed, in_utf_16])
def test_a_formula_is_one_however_the_sheet_is_written(tmp_path, rewritten):
    book = book_of()
    book.active["B4"] = "=1+3"
    with pytest.raises(CohortError, match="cell B4 holds a formula without a stored value"):
        read_rows(saved(book, tmp_path, rewritten))


def test_doubtful_cells_elsewhere_do_no_harm(tmp_path):
    rows = [("patient", "born", "grade"), ("a", datetime.date(1950, 1, 1), 2), ("b", "=TODAY()", 4)]
    assert ids(saved(book_of(rows), tmp_path)) == ["a", "b"]


def test_a_stored_value_of_a_formula_counts(tmp_path):
    book = book_of()
    book.active["B4"] = "=1+3"
    labels = saved(book, tmp_path, lambda xml: re.sub(rb"(<f>1\+3</f>)<v ?/?>(</v>)?", rb"\1<v>4</v>", xml))
    assert [row.value for row in read_rows(labels).rows][2] == "4"


@pytest.mark.parametrize(("area", "cell"), [("B3:B5", "B4"), ("A3:A4", "A4"), ("A3:B3", "B3")])
def test_merged_cells_are_refused(tmp_path, area, cell):
    book = book_of()
    book.active.merge_cells(area)
    with pytest.raises(CohortError, match=f"cell {cell} is merged into {area}"):
        read_rows(saved(book, tmp_path))


def test_hidden_rows_are_read_and_told(tmp_path):
    book = book_of()
    book.active.row_dimensions[3] = RowDimension(book.active, index=3, hidden=True)
    found = read_rows(saved(book, tmp_path))
    assert len(found.rows) == 12
    assert found.notes == ("1 hidden row of the sheet 'Sheet' of t.xlsx are read, too.",)


def test_several_sheets(tmp_path):
    book = book_of()
    book.create_sheet("Notes", 0).append(["Who", "What"])
    labels = saved(book, tmp_path)
    assert ids(labels) == ALL
    second = book.create_sheet("Other")
    for row in ROWS[:3]:
        second.append(row)
    labels = saved(book, tmp_path)
    with pytest.raises(CohortError, match=r"several sheets of .* hold ids and grades: Sheet, Other"):
        choose_table(labels)
    assert ids(labels.model_copy(update={"sheet": "Other"})) == ["p00", "p01"]
    with pytest.raises(CohortError, match="has no sheet 'Third'; its sheets: Notes, Sheet, Other"):
        choose_table(labels.model_copy(update={"sheet": "Third"}))


def test_an_archive_that_unpacks_to_gigabytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(101 << 20))
    with pytest.raises(CohortError, match="unpacks to more than 100 MiB"):
        read_tables(tmp_path / "t.xlsx")


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        '"',
        'a"b',
        ",",
        ";",
        "a,b",
        "\t",
        "a\nb",
        "x\r\ny,z",
        "-",
        "=1",
        "07",
        "7.0",
        "NA",
        "\N{NO-BREAK SPACE}x",
    ]
)
TABLES = st.integers(2, 5).flatmap(
    lambda width: st.lists(st.lists(TEXTS, min_size=width, max_size=width), min_size=1, max_size=8)
)


def meant(rows):
    """The rows with something in them, cleaned, below a header whose cells are all filled."""
    return [tuple(map(clean, row)) for row in rows if any(map(clean, row))]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=TABLES, separator=st.sampled_from(",;\t"), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_any_csv_is_read_as_meant_or_refused(tmp_path, rows, separator, encoding):
    header = [f"column {n}" for n in range(len(rows[0]))]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows([header, *rows])
    (tmp_path / "t.csv").write_bytes(stream.getvalue().encode(encoding))
    try:
        (table,) = read_tables(tmp_path / "t.csv")
    except CohortError as refused:
        assert re.search(r"line \d+", str(refused))
        assert any("\n" in cell or "\r" in cell for row in rows for cell in row)
        return
    assert table.header == tuple(header)
    assert [row.cells for row in table.rows] == meant(rows)


NUMBERS = st.integers(-(10**14), 10**14) | st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
CELLS = TEXTS | NUMBERS | st.none() | st.booleans()


def shown(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return clean(str(value))


def one_ending(cells):
    """Ends of lines as XML has them: openpyxl writes them as they are unless lxml is installed."""
    return tuple(cell.replace("\r\n", "\n").replace("\r", "\n") for cell in cells)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6))
@example(rows=[[None, "", "x\r\ny,z"]])
def test_any_workbook_is_read_as_meant(tmp_path, rows):
    book = book_of([["a", "b", "c"]])
    for number, row in enumerate(rows, start=2):
        for column, value in enumerate(row, start=1):
            cell = book.active.cell(number, column)
            cell.value = value
            if isinstance(value, str):
                cell.data_type = "s"  # "=1" as text
    book.save(tmp_path / "t.xlsx")
    (table,) = read_tables(tmp_path / "t.xlsx")
    wanted = [one_ending(map(shown, row)) for row in rows]
    assert [one_ending(row.cells) for row in table.rows] == [row for row in wanted if any(row)]
    assert not any(row.faults for row in table.rows)


NAMES = st.from_regex(r"[abcXYZ0-9][abcXYZ0-9\-_. ]{0,4}", fullmatch=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(table=st.lists(st.tuples(NAMES, st.sampled_from(["LGG", "HGG", "2", "4", "NA", ""])), min_size=1, max_size=10))
def test_no_row_is_lost_and_nobody_has_two_grades(tmp_path, table):
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("patient", "grade"), *table])
    grades = {}
    for name, value in table:
        grades.setdefault(clean(name), set()).add({"LGG": 0, "2": 0, "HGG": 1, "4": 1}.get(value))
    conflicts = [name for name, found in grades.items() if len(found - {None}) > 1]
    try:
        found = read_rows(LabelTable(file=tmp_path / "t.csv"))
    except CohortError as refused:
        assert "different grades" in str(refused)
        assert conflicts
        return
    assert len(found.rows) == len(table)
    for row in found.rows:
        assert found.grade(row) in grades[row.ids[0]]
