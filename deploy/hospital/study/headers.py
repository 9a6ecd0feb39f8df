"""One DICOM file read by pydicom: its header as plain facts, or its dataset; damaged ones end in one reason."""

from __future__ import annotations

import hashlib
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from deploy.hospital.study.facts import Frame, Header, Triple
from deploy.hospital.study.files import Files, Source, UnreadableFile
from toolkit.data.patients import printable

MOST_FRAMES = 20_000  # of one enhanced file
LARGEST_SIDE = 2048  # rows or columns; MR has up to 1024
LARGEST_INFLATED = 1 << 30  # bytes of a deflated file
_LONGEST = 200  # letters of a text that is kept
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PLAIN = b"1.2.840.10008.1.2.1\0\0\0"  # explicit little endian, padded to the same length
# What pydicom raises on damaged bytes, seen in fuzzing; anything else is a fault of this program.
_DAMAGE = (
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
_KEYWORDS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "SeriesDate", "AcquisitionDate",
    "AcquisitionDateTime", "SeriesTime", "AcquisitionTime", "Modality", "Manufacturer", "SeriesDescription",
    "AcquisitionContrast", "ComplexImageComponent", "PatientID", "IssuerOfPatientID", "ContrastBolusAgent",
    "ContrastBolusAgentSequence", "BodyPartExamined", "ScanningSequence", "SequenceVariant", "MRAcquisitionType",
    "SequenceName", "AngioFlag", "RepetitionTime", "EchoTime", "InversionTime", "ProtocolName",
    "ContrastBolusStartTime", "PulseSequenceName", "EchoPulseSequence", "TimeOfFlightContrast", "PhaseContrast",
    "EchoPlanarPulseSequence", "SteadyStatePulseSequence", "DiffusionBValue", "StudyInstanceUID", "SeriesInstanceUID",
    "SeriesNumber", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated",
    "RescaleIntercept", "RescaleSlope", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@contextmanager
def damage_named() -> Iterator[None]:
    """Turn what pydicom raises on damaged bytes into one reason; its doubts about single values are not shown.

    Raises:
        UnreadableFile: in place of any of them.
    """
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise UnreadableFile("is damaged: a length in its header asks for more memory than there is") from None
    except _DAMAGE as error:
        if isinstance(error, RecursionError):
            raise UnreadableFile("has sequences nested too deep") from None
        raise UnreadableFile(f"is damaged: {_sentence(error)}") from error
    finally:
        pydicom.config.settings.reading_validation_mode = before


def read_header(stream: BinaryIO, source: Source) -> Header:
    """The header of one file.

    Args:
        stream: as `Files.open` gives it.
        source: where the file is.

    Raises:
        UnreadableFile: it is damaged, has no UIDs, or asks for more than an image can have.
    """
    with damage_named():
        return _header(_read(stream, pixels=False, keywords=_KEYWORDS), source)


def read_dataset(source: Source, files: Files | None = None, pixels: bool = True) -> FileDataset:
    """The whole dataset of one file, for whatever needs more than its facts.

    Args:
        source: where the file is.
        files: an open `Files` where many are read in a row.
        pixels: whether to read the pixel data.

    Raises:
        UnreadableFile: the file vanished or is damaged.
    """
    with damage_named():
        if files is not None:
            return _read(files.open(source), pixels)
        with Files() as opened:
            return _read(opened.open(source), pixels)


def file_ids(stream: BinaryIO) -> list[tuple[str, ...]]:
    """The files that a DICOMDIR names, each as the parts of its path.

    Raises:
        UnreadableFile: it is damaged, or no DICOMDIR.
    """
    with damage_named():
        records = _read(stream, pixels=False).get("DirectoryRecordSequence")
        if records is None:
            raise UnreadableFile("is no DICOMDIR: it has no directory records")
        found = []
        for record in records:
            value = record.get("ReferencedFileID")
            if value:
                found.append(tuple(map(str, value)) if isinstance(value, MultiValue | list) else (str(value),))
        return list(dict.fromkeys(found))


def _read(stream: BinaryIO, pixels: bool, keywords: list[str] | None = None) -> FileDataset:
    stream = _inflated(stream)
    # Without force, a file without a preamble is refused; what is opened here has been seen to start as DICOM does.
    return pydicom.dcmread(stream, stop_before_pixels=not pixels, force=True, specific_tags=keywords)


def _inflated(stream: BinaryIO) -> BinaryIO:
    """A deflated file unpacked, within a limit: pydicom would unpack whatever there is."""
    head = stream.read(1024)
    stream.seek(0)
    if head[128:132] != b"DICM" or _DEFLATED not in head:
        return stream
    length = struct.unpack("<I", head[140:144])[0] if head[132:136] == b"\x02\x00\x00\x00" else 0
    start = 144 + length
    content = stream.read()
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    data = unpack.decompress(content[start:], LARGEST_INFLATED)
    if unpack.unconsumed_tail:
        raise UnreadableFile(f"inflates to more than {LARGEST_INFLATED >> 20} MiB")
    return BytesIO(content[:start].replace(_DEFLATED, _PLAIN) + data)


def _header(ds: FileDataset, source: Source) -> Header:
    study, series, sop = (_text(ds, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    for value, name in ((study, "StudyInstanceUID"), (series, "SeriesInstanceUID"), (sop, "SOPInstanceUID")):
        if not value:
            raise UnreadableFile(f"has no {name}")
    first = _first(ds, "SharedFunctionalGroupsSequence") or Dataset()
    rows, columns, frames = (_count(ds, name) for name in ("Rows", "Columns", "NumberOfFrames"))
    if max(rows, columns) > LARGEST_SIDE or frames > MOST_FRAMES:
        raise UnreadableFile(
            f"asks for {max(frames, 1)} images of {rows} x {columns}; "
            f"the limit is {MOST_FRAMES} of {LARGEST_SIDE} x {LARGEST_SIDE}"
        )
    agent, start = _agent(ds)
    images, diffusion = _frames(ds, frames)
    patient = f"{_text(ds, 'PatientID')}\0{_text(ds, 'IssuerOfPatientID')}"
    return Header(
        source=source,
        study=study,
        series=series,
        sop=sop,
        sop_class=_text(ds, "SOPClassUID"),
        syntax=str(getattr(ds.file_meta, "TransferSyntaxUID", "")),
        modality=_text(ds, "Modality").upper(),
        patient=hashlib.sha256(patient.encode("utf-8", "backslashreplace")).hexdigest(),
        number=_integer(ds, "SeriesNumber"),
        instance=_integer(ds, "InstanceNumber"),
        description=_text(ds, "SeriesDescription") or _text(ds, "ProtocolName"),
        manufacturer=_text(ds, "Manufacturer"),
        sequences=_sequences(ds, first),
        variants=_words(ds, "SequenceVariant"),
        sequence_name=_text(ds, "SequenceName") or _text(ds, "PulseSequenceName"),
        acquisition=_text(ds, "MRAcquisitionType").upper(),
        contrast_kind=_text(ds, "AcquisitionContrast").upper(),
        agent=agent,
        agent_start=start,
        body_part=_text(ds, "BodyPartExamined").upper(),
        angio="Y" in (_text(ds, name).upper()[:1] for name in ("AngioFlag", "TimeOfFlightContrast", "PhaseContrast")),
        diffusion=diffusion,
        rows=rows,
        columns=columns,
        samples=_count(ds, "SamplesPerPixel") or 1,
        bits=_count(ds, "BitsAllocated"),
        photometric=_text(ds, "PhotometricInterpretation").upper(),
        frames=images,
    )


def _frames(ds: Dataset, count: int) -> tuple[tuple[Frame, ...], float]:
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        images = tuple(_frame(ds, [ds], index) for index in range(max(count, 1))) if count < 2 else ()
        return images, _number(ds, "DiffusionBValue") or 0.0
    if len(groups) != max(count, 1):
        raise UnreadableFile(f"says it has {count} images and describes {len(groups)}")
    shared = _first(ds, "SharedFunctionalGroupsSequence") or Dataset()
    frames, diffusion = [], 0.0
    for index, group in enumerate(groups):
        parts = [item for name in _GROUPS if (item := _first(group, name) or _first(shared, name)) is not None]
        frames.append(_frame(ds, parts, index))
        diffusion = max(diffusion, *(_number(part, "DiffusionBValue") or 0.0 for part in parts), 0.0)
    return tuple(frames), diffusion


_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "MRTimingAndRelatedParametersSequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRImageFrameTypeSequence",
    "MRDiffusionSequence",
    "FrameContentSequence",
)


def _frame(ds: Dataset, parts: list[Dataset], index: int) -> Frame:
    def find(*names: str) -> float | None:
        values = (_number(part, name) for part in parts for name in names)
        return next((value for value in values if value is not None), None)

    def several(name: str, count: int) -> tuple[float, ...] | None:
        values = (_numbers(part, name, count) for part in parts)
        return next((value for value in values if value is not None), None)

    kinds = [kind for part in parts if (kind := _words(part, "FrameType"))] or [_words(ds, "ImageType")]
    complex_part = [word for part in (*parts, ds) if (word := _text(part, "ComplexImageComponent").upper())]
    slope = find("RescaleSlope")
    return Frame(
        index=index,
        position=_triple(several("ImagePositionPatient", 3)),
        orientation=_cosines(several("ImageOrientationPatient", 6)),
        spacing=_pair(several("PixelSpacing", 2)),
        slope=1.0 if slope is None else slope,
        intercept=find("RescaleIntercept") or 0.0,
        tr=find("RepetitionTime"),
        te=find("EchoTime", "EffectiveEchoTime"),
        ti=find("InversionTime", "InversionTimes"),
        image_type=kinds[0] + tuple(word for word in complex_part[:1] if word != "MAGNITUDE"),
        acquired=next((when for part in parts if (when := _digits(_text(part, "FrameAcquisitionDateTime")))), "")
        or _acquired(ds),
    )


def _sequences(ds: Dataset, shared: Dataset) -> tuple[str, ...]:
    """ScanningSequence, or the same words from the tags of an enhanced header."""
    written = _words(ds, "ScanningSequence")
    if written:
        return written
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(_text(ds, "EchoPulseSequence").upper(), ())
    modifier = _first(shared, "MRModifierSequence")
    inverted = ("IR",) if modifier is not None and _text(modifier, "InversionRecovery").upper() == "YES" else ()
    planar = ("EP",) if _text(ds, "EchoPlanarPulseSequence").upper() == "YES" else ()
    return echo + inverted + planar


def _agent(ds: Dataset) -> tuple[str | None, str]:
    agent = _text(ds, "ContrastBolusAgent") if "ContrastBolusAgent" in ds else None
    item = _first(ds, "ContrastBolusAgentSequence")
    if not agent and item is not None:
        agent = _text(item, "CodeMeaning") or _text(item, "CodeValue") or "named by a code"
    day = _digits(_text(ds, "AcquisitionDate") or _text(ds, "SeriesDate") or _text(ds, "StudyDate"))[:8]
    start = _digits(_text(ds, "ContrastBolusStartTime"))
    return agent, day + start if len(day) == 8 and len(start) >= 4 else ""


def _acquired(ds: Dataset) -> str:
    if (when := _digits(_text(ds, "AcquisitionDateTime"))) and len(when) >= 12:
        return when
    day = _digits(_text(ds, "AcquisitionDate") or _text(ds, "SeriesDate") or _text(ds, "StudyDate"))[:8]
    time = _digits(_text(ds, "AcquisitionTime") or _text(ds, "SeriesTime"))
    return day + time if len(day) == 8 and len(time) >= 4 else ""


def _digits(text: str) -> str:
    return "".join(char for char in text.split("+", maxsplit=1)[0] if char in "0123456789.")


def _first(ds: Dataset, keyword: str) -> Dataset | None:
    value = ds.get(keyword)
    return value[0] if isinstance(value, pydicom.Sequence) and len(value) else None


def _value(ds: Dataset, keyword: str) -> Any:
    try:
        return ds.get(keyword)
    except _DAMAGE:
        return None  # one value that cannot be read is one that is not there


def _text(ds: Dataset, keyword: str) -> str:
    value = _value(ds, keyword)
    if value is None:
        return ""
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue | list) else str(value)
    return printable(text.strip(" \0"))[:_LONGEST]


def _words(ds: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(word.strip().upper() for word in _text(ds, keyword).split("\\") if word.strip())


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    value = _value(ds, keyword)
    if not isinstance(value, MultiValue | list) or len(value) != count:
        return None
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _number(ds: Dataset, keyword: str) -> float | None:
    value = _value(ds, keyword)
    if isinstance(value, MultiValue | list):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _integer(ds: Dataset, keyword: str) -> int | None:
    number = _number(ds, keyword)
    return None if number is None else int(number)


def _count(ds: Dataset, keyword: str) -> int:
    return max(_integer(ds, keyword) or 0, 0)


def _triple(values: tuple[float, ...] | None) -> Triple | None:
    return None if values is None else (values[0], values[1], values[2])


def _pair(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return None if values is None or min(values) <= 0 else (values[0], values[1])


def _cosines(values: tuple[float, ...] | None) -> tuple[float, float, float, float, float, float] | None:
    if values is None:
        return None
    a, b, c, d, e, f = values
    lengths = math.hypot(a, b, c), math.hypot(d, e, f)
    if max(abs(length - 1) for length in lengths) > 1e-2 or abs(a * d + b * e + c * f) > 1e-2:
        return None
    return a, b, c, d, e, f


def _sentence(error: BaseException) -> str:
    text = printable(" ".join(str(error).split()))
    return (text[:_LONGEST] or type(error).__name__).rstrip(".")
