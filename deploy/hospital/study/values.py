"""Single values of a dataset: what is missing, damaged or not finite is None, whatever a scanner wrote."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from deploy.hospital.study.facts import Triple
from deploy.hospital.study.source import UnreadableFile
from toolkit.data.patients import printable

LONGEST = 200  # letters of a text that is kept
# What pydicom raises on damaged bytes, seen in fuzzing; anything else is a fault of this program.
DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    struct.error,
    zlib.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # RecursionError of sequences nested too deep, NotImplementedError
    TypeError,
    ValueError,
)


def digits_in(text: str) -> str:
    """The digits and points of a date or time, which sort; a time zone is dropped."""
    return "".join(char for char in text.split("+", maxsplit=1)[0] if char in "0123456789.")


def first_item(ds: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence; None where there is none.

    Raises:
        UnreadableFile: the header has a value there that is no sequence.
    """
    value = ds.get(keyword)
    if value is not None and not isinstance(value, pydicom.Sequence):
        raise UnreadableFile(f"is damaged: its {keyword} is no sequence")
    return value[0] if value else None


def value_of(ds: Dataset, keyword: str) -> Any:
    """A value as pydicom gives it; one that cannot be read is one that is not there."""
    try:
        return ds.get(keyword)
    except DAMAGE:
        return None  # one value that cannot be read is one that is not there


def text_of(ds: Dataset, keyword: str) -> str:
    """A value as one printable line, several joined by a backslash; empty where there is none."""
    value = value_of(ds, keyword)
    if value is None:
        return ""
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue | list) else str(value)
    return printable(text.strip(" \0"))[:LONGEST]


def words_of(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """The parts of a multi-valued text in capitals."""
    return tuple(word.strip().upper() for word in text_of(ds, keyword).split("\\") if word.strip())


def numbers_of(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers; None otherwise."""
    value = value_of(ds, keyword)
    if not isinstance(value, MultiValue | list) or len(value) != count:
        return None
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def number_of(ds: Dataset, keyword: str) -> float | None:
    """The first of its numbers, if finite."""
    value = value_of(ds, keyword)
    if isinstance(value, MultiValue | list):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def fault_of(ds: Dataset, keyword: str) -> str:
    """A value that is there and is not one finite number, as text; empty where it is one, or there is none."""
    if keyword not in ds:
        return ""
    value = value_of(ds, keyword)
    if number_of(ds, keyword) is not None and not isinstance(value, MultiValue | list):
        return ""
    if value is None and isinstance(raw := ds.get_item(keyword).value, bytes):  # pydicom cannot read it
        return printable(raw.decode("latin-1").strip(" \0"))[:LONGEST]
    return text_of(ds, keyword)


def integer_of(ds: Dataset, keyword: str) -> int | None:
    """The first of its numbers, cut to a whole one."""
    number = number_of(ds, keyword)
    return None if number is None else int(number)


def count_of(ds: Dataset, keyword: str) -> int:
    """A number that counts something: at least 0."""
    return max(integer_of(ds, keyword) or 0, 0)


def as_triple(values: tuple[float, ...] | None) -> Triple | None:
    """A position."""
    return None if values is None else (values[0], values[1], values[2])


def as_pair(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    """Two spacings, mm, both above 0; None otherwise."""
    return None if values is None or min(values) <= 0 else (values[0], values[1])


def as_cosines(values: tuple[float, ...] | None) -> tuple[float, float, float, float, float, float] | None:
    """Directions of a row and a column; None unless they are unit vectors at a right angle, to 0.01."""
    if values is None:
        return None
    a, b, c, d, e, f = values
    lengths = math.hypot(a, b, c), math.hypot(d, e, f)
    if max(abs(length - 1) for length in lengths) > 1e-2 or abs(a * d + b * e + c * f) > 1e-2:
        return None
    return a, b, c, d, e, f
