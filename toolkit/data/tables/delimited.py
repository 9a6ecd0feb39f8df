"""CSV: encodings, separators and quotes, read strictly, so that no row vanishes inside a cell."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from toolkit.data.tables.table import Row, Table, build_table, clean
from toolkit.errors import CohortError

_SEPARATORS = ",;\t|"
# The marks that begin a file; that of UTF-32 holds that of UTF-16 and comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEP_LINE = re.compile(r'\s*"?sep=([,;\t|])"?\s*\r?\n', re.IGNORECASE)  # Excel's own first line


def read_delimited(content: bytes, file: Path) -> list[Table]:
    """The table of a CSV file, or nothing where it is blank.

    Args:
        content: of the file.
        file: for sentences.

    Raises:
        CohortError: not UTF-8 or marked UTF-16, a NUL, a quote that is never closed, a cell that holds what looks like
            rows, a cell over 131072 characters, or a row longer than the header.
    """
    text = _text(content, file)
    if not text.strip():
        return []
    first = 0
    if marked := _SEP_LINE.match(text):
        text, first, separator = text[marked.end() :], 1, marked[1]
    else:
        separator = _separator(text)
    rows = [Row(number, tuple(map(clean, cells))) for number, cells in _records(text, separator, first, file)]
    table = build_table(f"table {file.name}", "", rows)
    return [table] if table else []


def _text(content: bytes, file: Path) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CohortError(
            f"the table {file} is not UTF-8 text: line {line} holds the byte 0x{content[error.start]:02x}; save it as "
            "CSV UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CohortError(f"the table {file} holds a NUL character in line {line}; save it as CSV UTF-8.")
    return text


def _separator(text: str) -> str:
    """What cuts the header into the most cells."""
    counts = {}
    for separator in _SEPARATORS:
        try:
            counts[separator] = len(next(csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator)))
        except (csv.Error, StopIteration):
            counts[separator] = 0
    return max(counts, key=counts.__getitem__)


def _records(text: str, separator: str, first: int, file: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    before = first
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CohortError(
                f"the table {file} cannot be read from line {before + 1} on: {error}; a quote may be open there."
            ) from None
        if _swallowed(cells, separator):
            raise CohortError(
                f"the table {file}, line {before + 1}: a cell in quotes holds lines that look like rows; "
                "close the quote, or take the line breaks out of the cell."
            )
        yield before + 1, cells
        before = first + reader.line_num


def _swallowed(cells: list[str], separator: str) -> bool:
    """Whether a cell holds a line that could be a row of the table: the mark of a quote that was left open."""
    return any(separator in line for cell in cells for line in re.split(r"\r\n?|\n", cell)[1:])
