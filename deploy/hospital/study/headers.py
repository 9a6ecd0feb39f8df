"""One DICOM file read by pydicom: its header as plain facts, or its dataset; damaged ones end in one reason."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue

from deploy.hospital.study.facts import Frame, Header, digest
from deploy.hospital.study.files import Files
from deploy.hospital.study.source import Source, UnreadableFile
from deploy.hospital.study.values import (
    DAMAGE,
    LONGEST,
    as_cosines,
    as_pair,
    as_triple,
    count_of,
    digits_in,
    fault_of,
    first_item,
    integer_of,
    number_of,
    numbers_of,
    text_of,
    words_of,
)
from toolkit.data.patients import printable

MOST_FRAMES = 20_000  # of one enhanced file
LARGEST_SIDE = 2048  # rows or columns; MR has up to 1024
LARGEST_INFLATED = 1 << 30  # bytes of a deflated file
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PLAIN = b"1.2.840.10008.1.2.1\0\0\0"  # explicit little endian, padded to the same length
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
    except DAMAGE as error:
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
    study, series, sop = (text_of(ds, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    for value, name in ((study, "StudyInstanceUID"), (series, "SeriesInstanceUID"), (sop, "SOPInstanceUID")):
        if not value:
            raise UnreadableFile(f"has no {name}")
    first = first_item(ds, "SharedFunctionalGroupsSequence") or Dataset()
    rows, columns, frames = (count_of(ds, name) for name in ("Rows", "Columns", "NumberOfFrames"))
    if max(rows, columns) > LARGEST_SIDE or frames > MOST_FRAMES:
        raise UnreadableFile(
            f"asks for {max(frames, 1)} images of {rows} x {columns}; "
            f"the limit is {MOST_FRAMES} of {LARGEST_SIDE} x {LARGEST_SIDE}"
        )
    agent, start = _agent(ds)
    images, diffusion = _frames(ds, frames)
    patient = text_of(ds, "PatientID")
    return Header(
        source=source,
        study=study,
        series=series,
        sop=sop,
        sop_class=text_of(ds, "SOPClassUID"),
        syntax=str(getattr(ds.file_meta, "TransferSyntaxUID", "")),
        modality=text_of(ds, "Modality").upper(),
        patient=digest(f"{patient}\0{text_of(ds, 'IssuerOfPatientID')}"),
        patient_id=digest(patient),
        number=integer_of(ds, "SeriesNumber"),
        instance=integer_of(ds, "InstanceNumber"),
        description=text_of(ds, "SeriesDescription") or text_of(ds, "ProtocolName"),
        manufacturer=text_of(ds, "Manufacturer"),
        sequences=_sequences(ds, first),
        variants=words_of(ds, "SequenceVariant"),
        sequence_name=text_of(ds, "SequenceName") or text_of(ds, "PulseSequenceName"),
        acquisition=text_of(ds, "MRAcquisitionType").upper(),
        contrast_kind=text_of(ds, "AcquisitionContrast").upper(),
        agent=agent,
        agent_start=start,
        body_part=text_of(ds, "BodyPartExamined").upper(),
        angio="Y" in (text_of(ds, name).upper()[:1] for name in ("AngioFlag", "TimeOfFlightContrast", "PhaseContrast")),
        diffusion=diffusion,
        rows=rows,
        columns=columns,
        samples=count_of(ds, "SamplesPerPixel") or 1,
        bits=count_of(ds, "BitsAllocated"),
        photometric=text_of(ds, "PhotometricInterpretation").upper(),
        frames=images,
    )


def _frames(ds: Dataset, count: int) -> tuple[tuple[Frame, ...], float]:
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        images = tuple(_frame(ds, [ds], index) for index in range(max(count, 1))) if count < 2 else ()
        return images, number_of(ds, "DiffusionBValue") or 0.0
    if len(groups) != max(count, 1):
        raise UnreadableFile(f"says it has {count} images and describes {len(groups)}")
    shared = first_item(ds, "SharedFunctionalGroupsSequence") or Dataset()
    frames, diffusion = [], 0.0
    for index, group in enumerate(groups):
        parts = [item for name in _GROUPS if (item := first_item(group, name) or first_item(shared, name)) is not None]
        frames.append(_frame(ds, parts, index))
        diffusion = max(diffusion, *(number_of(part, "DiffusionBValue") or 0.0 for part in parts), 0.0)
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
        values = (number_of(part, name) for part in parts for name in names)
        return next((value for value in values if value is not None), None)

    def several(name: str, count: int) -> tuple[float, ...] | None:
        values = (numbers_of(part, name, count) for part in parts)
        return next((value for value in values if value is not None), None)

    kinds = [kind for part in parts if (kind := words_of(part, "FrameType"))] or [words_of(ds, "ImageType")]
    complex_part = [word for part in (*parts, ds) if (word := text_of(part, "ComplexImageComponent").upper())]
    faults = [
        f"{what} {fault}"
        for part in parts
        for what in ("slope", "intercept")
        if (fault := fault_of(part, f"Rescale{what.capitalize()}"))
    ]
    return Frame(
        index=index,
        position=as_triple(several("ImagePositionPatient", 3)),
        orientation=as_cosines(several("ImageOrientationPatient", 6)),
        spacing=as_pair(several("PixelSpacing", 2)),
        slope=find("RescaleSlope"),
        intercept=find("RescaleIntercept"),
        unreadable=faults[0] if faults else "",
        tr=find("RepetitionTime"),
        te=find("EchoTime", "EffectiveEchoTime"),
        ti=find("InversionTime", "InversionTimes"),
        image_type=kinds[0] + tuple(word for word in complex_part[:1] if word != "MAGNITUDE"),
        acquired=next((when for part in parts if (when := digits_in(text_of(part, "FrameAcquisitionDateTime")))), "")
        or _acquired(ds),
    )


def _sequences(ds: Dataset, shared: Dataset) -> tuple[str, ...]:
    """ScanningSequence, or the same words from the tags of an enhanced header."""
    written = words_of(ds, "ScanningSequence")
    if written:
        return written
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(
        text_of(ds, "EchoPulseSequence").upper(), ()
    )
    modifier = first_item(shared, "MRModifierSequence")
    inverted = ("IR",) if modifier is not None and text_of(modifier, "InversionRecovery").upper() == "YES" else ()
    planar = ("EP",) if text_of(ds, "EchoPlanarPulseSequence").upper() == "YES" else ()
    return echo + inverted + planar


def _agent(ds: Dataset) -> tuple[str | None, str]:
    agent = text_of(ds, "ContrastBolusAgent") if "ContrastBolusAgent" in ds else None
    item = first_item(ds, "ContrastBolusAgentSequence")
    if not agent and item is not None:
        agent = text_of(item, "CodeMeaning") or text_of(item, "CodeValue") or "named by a code"
    day = digits_in(text_of(ds, "AcquisitionDate") or text_of(ds, "SeriesDate") or text_of(ds, "StudyDate"))[:8]
    start = digits_in(text_of(ds, "ContrastBolusStartTime"))
    return agent, day + start if len(day) == 8 and len(start) >= 4 else ""


def _acquired(ds: Dataset) -> str:
    if (when := digits_in(text_of(ds, "AcquisitionDateTime"))) and len(when) >= 12:
        return when
    day = digits_in(text_of(ds, "AcquisitionDate") or text_of(ds, "SeriesDate") or text_of(ds, "StudyDate"))[:8]
    time = digits_in(text_of(ds, "AcquisitionTime") or text_of(ds, "SeriesTime"))
    return day + time if len(day) == 8 and len(time) >= 4 else ""


def _sentence(error: BaseException) -> str:
    text = printable(" ".join(str(error).split()))
    return (text[:LONGEST] or type(error).__name__).rstrip(".")
