"""DICOM studies as scanners write them: classic and enhanced, tags of three vendors, the usual codecs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from deploy.hospital.volume import Volume

CLASSIC, ENHANCED = UID("1.2.840.10008.5.1.4.1.1.4"), UID("1.2.840.10008.5.1.4.1.1.4.1")
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)
_START = datetime(2024, 1, 5, 10, 15)


@dataclass(frozen=True)
class Look:
    """The tags of one series."""

    description: str
    number: int
    tr: float | None
    te: float | None
    ti: float | None = None
    sequence: tuple[str, ...] = ("SE",)
    variant: tuple[str, ...] = ("SK",)
    sequence_name: str = ""
    acquisition: str = "2D"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "NONE")
    agent: str | None = None
    minutes: int = 0  # after the study began; None leaves the times out
    more: Mapping[str, Any] = field(default_factory=dict)  # any other tags


_NORM = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")
_IR, _MP = ("SE", "IR"), ("SK", "SP", "MP")
_MPRAGE = {
    "tr": 2300, "te": 2.98, "ti": 900, "sequence": ("GR", "IR"), "variant": ("SP", "MP"),
    "sequence_name": "*tfl3d1_16ns", "acquisition": "3D", "image_type": _NORM,
}  # fmt: skip
_M_SE, _M_IR = ("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"), ("ORIGINAL", "PRIMARY", "M_IR", "M", "IR")
LOOKS: dict[str, dict[str, Look]] = {
    "ge": {
        "flair": Look("AX FLAIR", 3, 10002, 155, 2200, _IR, minutes=3),
        "t1": Look("AX T1", 4, 500, 14, None, ("SE",), ("NONE",), minutes=4),
        "t2": Look("AX T2 FSE", 5, 4000, 102, minutes=5),
        "t1ce": Look("AX T1 POST", 8, 500, 14, None, ("SE",), ("NONE",), agent="GADAVIST", minutes=8),
    },
    "siemens": {
        "flair": Look("t2_tirm_tra_dark-fluid_5mm", 4, 9000, 87, 2500, _IR, _MP, "*tir2d1_16", minutes=3),
        "t1": Look("t1_mprage_sag_p2_iso", 5, minutes=4, **_MPRAGE),
        "t2": Look("t2_tse_tra_5mm", 6, 5600, 99, None, ("SE",), ("SK", "SP"), "*tse2d1_15", minutes=5),
        "t1ce": Look("t1_mprage_sag_p2_iso_KM", 11, agent="Gadovist", minutes=9, **_MPRAGE),
    },
    "philips": {
        "flair": Look("sFLAIR TRA", 301, 11000, 125, 2800, _IR, minutes=3, image_type=_M_IR),
        "t1": Look("T1W_SE", 401, 596, 12, None, ("SE",), ("OTHER",), minutes=4, image_type=_M_SE),
        "t2": Look("T2W_TSE", 501, 4210, 100, minutes=5, image_type=_M_SE),
        "t1ce": Look(
            "T1W_SE +C", 901, 596, 12, None, ("SE",), ("OTHER",), agent="DOTAREM", minutes=9, image_type=_M_SE
        ),
    },
}
_MAKERS = {
    "ge": ("GE MEDICAL SYSTEMS", "SIGNA"),
    "siemens": ("SIEMENS", "Skyra"),
    "philips": ("Philips Medical Systems", "Ingenia"),
}


@dataclass(frozen=True)
class Paper:
    """What all series of a study share."""

    vendor: str = "ge"
    enhanced: bool = False
    syntax: UID = ExplicitVRLittleEndian
    seed: str = "study"  # of all UIDs
    name: str = "TEST^GLIOMA"
    charset: str = "ISO_IR 192"


def uid(*parts: object) -> UID:
    """A UID that the same parts give again."""
    return UID("2.25." + str(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:15], "big")))


def write_study(
    folder: Path,
    volumes: Mapping[str, Volume],
    vendor: str = "ge",
    looks: Mapping[str, Look] | None = None,
    paper: Paper | None = None,
) -> Path:
    """A study below a folder, one folder for each series, with tags as the vendor writes them.

    Args:
        folder: made if it is not there.
        volumes: modality -> what its files hold; integers from 0 to 32767 come back exactly.
        vendor: `ge`, `siemens` or `philips` (whose slices have slopes of their own).
        looks: modality -> tags that replace the vendor's; other keys are further series.
        paper: codec, enhanced or classic, patient's name.
    """
    paper = replace(paper or Paper(), vendor=vendor)
    for key, volume in volumes.items():
        look = (looks or {}).get(key) or LOOKS[vendor][key]
        write_series(folder / f"{look.number:04d}", volume, look, paper)
    return folder


def write_series(folder: Path, volume: Volume, look: Look, paper: Paper) -> list[Path]:
    """One series; the files in the order of the volume's third axis."""
    folder.mkdir(parents=True, exist_ok=True)
    series = datasets(volume, look, paper)
    files = [folder / f"{index:04d}.dcm" for index in range(1, len(series) + 1)]
    for file, ds in zip(files, series, strict=True):
        save(ds, file)
    return files


def save(ds: Dataset, file: Path) -> None:
    """Write one dataset as its file meta says."""
    syntax = ds.file_meta.TransferSyntaxUID
    dcmwrite(
        file,
        ds,
        enforce_file_format=True,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
    )


def datasets(volume: Volume, look: Look, paper: Paper) -> list[FileDataset]:
    """The files of a series as datasets: one for each slice, or one enhanced."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = [round(float(x), 9) for x in (*(lps[:3, 0] / edges[0]), *(lps[:3, 1] / edges[1]))]
    slices = [_stored(volume.voxels[:, :, k].T, volume.voxels, paper) for k in range(volume.voxels.shape[2])]
    places = [[round(float(x), 6) for x in (lps @ (0, 0, k, 1))[:3]] for k in range(len(slices))]
    spacing = [round(float(edges[1]), 9), round(float(edges[0]), 9)]
    if paper.enhanced:
        return [_enhanced(slices, places, cosines, spacing, edges[2], look, paper)]
    found = []
    for index, ((pixels, slope), place) in enumerate(zip(slices, places, strict=True), 1):
        ds = _common(look, paper, CLASSIC, uid(paper.seed, look.number, index), index)
        _classic_physics(ds, look)
        ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing = place, cosines, spacing
        ds.SliceThickness = ds.SpacingBetweenSlices = round(float(edges[2]), 6)
        if slope != 1 or paper.vendor == "philips":
            ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = f"{slope:.12g}", 0, "normalized"
        _pixels(ds, pixels[None], paper.syntax)
        found.append(_finished(ds, look))
    return found


def _stored(plane: NDArray[np.float32], whole: NDArray[np.float32], paper: Paper) -> tuple[NDArray[np.uint16], float]:
    """Stored values and slope: whole numbers as they are; Philips scales each slice to 12 bits."""
    if paper.vendor == "philips":
        slope = max(float(plane.max()), 1e-3) / 4095
        slope = float(f"{slope:.12g}")
    else:
        whole_numbers = np.array_equal(whole, whole.round()) and whole.min() >= 0 and whole.max() < 32768
        slope = 1.0 if whole_numbers else float(f"{max(float(whole.max()), 1e-3) / 32767:.12g}")
    return np.clip(np.round(plane / slope), 0, 32767).astype(np.uint16), slope


def _common(look: Look, paper: Paper, kind: UID, sop: UID, instance: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, sop
    meta.TransferSyntaxUID = paper.syntax
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    when = _START + timedelta(minutes=look.minutes)
    ds.SpecificCharacterSet = paper.charset
    ds.ImageType = list(look.image_type)
    ds.SOPClassUID, ds.SOPInstanceUID = kind, sop
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{_START:%Y%m%d}"
    ds.StudyTime = f"{_START:%H%M%S}"
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{when:%H%M%S}.000000"
    ds.AccessionNumber, ds.Modality = "A1", "MR"
    ds.Manufacturer, ds.ManufacturerModelName = _MAKERS[paper.vendor]
    ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = "MRI BRAIN W AND WO CONTRAST", look.description
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = paper.name, "P1", "", "O"
    ds.BodyPartExamined, ds.PatientPosition, ds.MagneticFieldStrength = "BRAIN", "HFS", 3
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(paper.seed), uid(paper.seed, look.number)
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", look.number, instance
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid(paper.seed, "frame"), ""
    ds.MRAcquisitionType = look.acquisition
    return ds


def _classic_physics(ds: Dataset, look: Look) -> None:
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = list(look.sequence), list(look.variant), ""
    ds.EchoTrainLength, ds.FlipAngle = 1, 90
    if look.sequence_name:
        ds.SequenceName = look.sequence_name
    for keyword, value in (("RepetitionTime", look.tr), ("EchoTime", look.te), ("InversionTime", look.ti)):
        if value is not None:
            setattr(ds, keyword, value)
    if look.agent is not None:
        ds.ContrastBolusAgent = look.agent


def _enhanced(
    slices: list[tuple[NDArray[np.uint16], float]],
    places: list[list[float]],
    cosines: list[float],
    spacing: list[float],
    thickness: float,
    look: Look,
    paper: Paper,
) -> FileDataset:
    ds = _common(look, paper, ENHANCED, uid(paper.seed, look.number, 1), 1)
    del ds.SeriesTime
    ds.SeriesTime = ds.AcquisitionTime
    ds.AcquisitionDateTime = ds.AcquisitionDate + ds.AcquisitionTime
    del ds.AcquisitionTime, ds.AcquisitionDate
    gradient, spin = "GR" in look.sequence, "SE" in look.sequence
    ds.EchoPulseSequence = "BOTH" if gradient and spin else "GRADIENT" if gradient else "SPIN"
    ds.PulseSequenceName = look.sequence_name or "seq"
    ds.EchoPlanarPulseSequence = "YES" if "EP" in look.sequence else "NO"
    ds.SteadyStatePulseSequence, ds.TimeOfFlightContrast, ds.PhaseContrast = "NONE", "NO", "NO"
    ds.AcquisitionContrast, ds.ComplexImageComponent = "UNKNOWN", "MAGNITUDE"
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    if look.agent is not None:
        ds.ContrastBolusAgentSequence = [
            _item(CodeValue="C-B03FA", CodingSchemeDesignator="SRT", CodeMeaning=look.agent)
        ]
    timing = _item(**{"FlipAngle": 90} | ({"RepetitionTime": look.tr} if look.tr is not None else {}))
    modifier = _item(InversionRecovery="YES" if "IR" in look.sequence else "NO")
    if look.ti is not None:
        modifier.InversionTimes = [look.ti]
    ds.SharedFunctionalGroupsSequence = [
        _item(
            MRTimingAndRelatedParametersSequence=[timing],
            MRModifierSequence=[modifier],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=cosines)],
            PixelMeasuresSequence=[
                _item(PixelSpacing=spacing, SliceThickness=float(thickness), SpacingBetweenSlices=float(thickness))
            ],
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame(look, place, slope, index)
        for index, (place, (_, slope)) in enumerate(zip(places, slices, strict=True), 1)
    ]
    dimension = uid(paper.seed, "dimension")
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimension)]
    ds.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=dimension, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)
        for pointer in (0x00209056, 0x00209057)
    ]
    ds.NumberOfFrames = len(slices)
    _pixels(ds, np.stack([pixels for pixels, _ in slices]), paper.syntax)
    return _finished(ds, look)


def _frame(look: Look, place: list[float], slope: float, index: int) -> Dataset:
    echo = {} if look.te is None else {"EffectiveEchoTime": float(look.te)}
    return _item(
        PlanePositionSequence=[_item(ImagePositionPatient=place)],
        FrameContentSequence=[
            _item(StackID="1", InStackPositionNumber=index, DimensionIndexValues=[1, index], TemporalPositionIndex=1)
        ],
        MREchoSequence=[_item(**echo)],
        MRImageFrameTypeSequence=[_item(FrameType=list(look.image_type))],
        PixelValueTransformationSequence=[
            _item(RescaleSlope=f"{slope:.12g}", RescaleIntercept=0, RescaleType="normalized")
        ],
    )


def _item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _finished(ds: FileDataset, look: Look) -> FileDataset:
    for keyword, value in look.more.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def _pixels(ds: Dataset, frames: NDArray[np.uint16], syntax: UID) -> None:
    """Put images into a dataset, (frames, rows, columns) of 16 bits."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    _, ds.Rows, ds.Columns = frames.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    if not syntax.is_encapsulated:
        ds.PixelData = frames.astype("<u2" if syntax.is_little_endian else ">u2").tobytes()
        ds["PixelData"].VR = "OW"
        return
    ds.PixelData = encapsulate([_encoded(frame, ds, syntax) for frame in frames])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def _encoded(frame: NDArray[np.uint16], ds: Dataset, syntax: UID) -> bytes:
    if syntax == RLELossless:
        return bytes(
            RLELosslessEncoder.encode(
                frame.astype("<u2").tobytes(), rows=frame.shape[0], columns=frame.shape[1], number_of_frames=1,
                samples_per_pixel=1, bits_allocated=16, bits_stored=16, pixel_representation=0,
                photometric_interpretation="MONOCHROME2",
            )
        )  # fmt: skip
    if syntax == JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True, level=0))
    if syntax == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(frame))
    return bytes(imagecodecs.ljpeg_encode(frame, bitspersample=16))
