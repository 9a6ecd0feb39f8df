"""What one DICOM file says, as plain data: nothing here needs pydicom."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from deploy.hospital.study.source import Source

Triple = tuple[float, float, float]


def digest(name: str) -> str:
    """SHA-256 of an id or UID in hexadecimal: by it names of tables and of studies are compared and recorded."""
    return hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()


@dataclass(frozen=True)
class Frame:
    """One 2-D image: a classic file has one, an enhanced file as many as slices.

    Attributes:
        index: place within its file, from 0.
        position: centre of the first voxel, mm, LPS+; None where the header has none.
        orientation: direction cosines of a row, then of a column; None where there are none, or no unit vectors.
        spacing: mm between rows, between columns; None where the header has none.
        slope: multiplies a stored value; None where the header has none, which counts as 1.
        intercept: is added to it; None where the header has none, which counts as 0.
        unreadable: the slope or intercept that is there and is not one finite number, in words; empty otherwise.
        tr: repetition time, ms.
        te: echo time, ms.
        ti: inversion time, ms.
        image_type: `ORIGINAL`, `PRIMARY`, ...
        acquired: date and time as digits, which sort; empty when not known.
    """

    index: int
    position: Triple | None
    orientation: tuple[float, float, float, float, float, float] | None
    spacing: tuple[float, float] | None
    slope: float | None = None
    intercept: float | None = None
    unreadable: str = ""
    tr: float | None = None
    te: float | None = None
    ti: float | None = None
    image_type: tuple[str, ...] = ()
    acquired: str = ""


@dataclass(frozen=True)
class Header:
    """One DICOM file without its pixels.

    Attributes:
        source: where the file is.
        study, series, sop, sop_class, syntax: UIDs.
        modality: `MR`, ...
        patient: hash of PatientID and its issuer, by which two patients are told apart; neither itself is kept.
        patient_id: hash of PatientID alone, as a table of grades has it.
        number: SeriesNumber.
        instance: InstanceNumber.
        description: SeriesDescription, else ProtocolName.
        manufacturer: as written.
        sequences: ScanningSequence (SE, GR, IR, EP, RM), put together from an enhanced header's own tags.
        variants: SequenceVariant (SK, SP, SS, MP, ...).
        sequence_name: SequenceName or PulseSequenceName.
        acquisition: `2D`, `3D` or empty.
        contrast_kind: AcquisitionContrast of an enhanced header.
        agent: ContrastBolusAgent, or the meaning of its sequence's code; None where the header has no such tag.
        agent_start: date and time of the injection as digits; empty when not known.
        body_part: BodyPartExamined.
        angio: whether the header says that this is an angiography.
        diffusion: largest b-value, s/mm2.
        rows, columns, samples, bits: of an image.
        photometric: PhotometricInterpretation.
        frames: the images.
    """

    source: Source
    study: str
    series: str
    sop: str
    sop_class: str
    syntax: str
    modality: str = ""
    patient: str = ""
    patient_id: str = ""
    number: int | None = None
    instance: int | None = None
    description: str = ""
    manufacturer: str = ""
    sequences: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    sequence_name: str = ""
    acquisition: str = ""
    contrast_kind: str = ""
    agent: str | None = None
    agent_start: str = ""
    body_part: str = ""
    angio: bool = False
    diffusion: float = 0.0
    rows: int = 0
    columns: int = 0
    samples: int = 1
    bits: int = 16
    photometric: str = ""
    frames: tuple[Frame, ...] = field(default=(), repr=False)
