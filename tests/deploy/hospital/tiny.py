"""Tiny DICOM studies: four series of a few small slices, written in milliseconds, for what happens around images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

MODALITIES = ("flair", "t1", "t1ce", "t2")
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def tiny_study(number: int = 1, slices: int = 2, side: int = 16) -> dict[str, list[Dataset]]:
    """A study whose UIDs follow from its number: modality -> images."""
    study = generate_uid(entropy_srcs=[f"study {number}"])
    return {
        modality: [_image(study, number, modality, place, side) for place in range(slices)] for modality in MODALITIES
    }


def images_of(study: dict[str, list[Dataset]]) -> list[Dataset]:
    return [image for images in study.values() for image in images]


def write_study(study: dict[str, list[Dataset]], folder: Path) -> list[Path]:
    """Files with pixels, one folder per series."""
    files = []
    for modality, images in study.items():
        (folder / modality).mkdir(parents=True, exist_ok=True)
        for place, image in enumerate(images):
            files.append(folder / modality / f"{place}.dcm")
            image.save_as(files[-1], enforce_file_format=True)
    return files


def reread(study: dict[str, list[Dataset]], folder: Path) -> dict[str, list[Dataset]]:
    """The headers as a reader of the files sees them."""
    write_study(study, folder)
    return {
        modality: [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted((folder / modality).iterdir())]
        for modality in study
    }


def _image(study: str, number: int, modality: str, place: int, side: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = generate_uid(entropy_srcs=[f"{study} {modality} {place}"])
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.StudyDate = image.SeriesDate = "20260102"
    image.StudyTime = image.SeriesTime = "101500"
    image.AccessionNumber = f"A{number:05d}"
    image.Modality = "MR"
    image.Manufacturer = "SCANNER"
    image.ReferringPhysicianName = "REFERRER^RITA"
    image.SeriesDescription = modality
    image.PatientName = f"PHANTOM^{number}"
    image.PatientID = f"P{number:05d}"
    image.PatientBirthDate = "19600101"
    image.PatientSex = "O"
    image.StudyInstanceUID = study
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[f"{study} {modality}"])
    image.StudyID = str(number)
    image.SeriesNumber = MODALITIES.index(modality) + 1
    image.InstanceNumber = place + 1
    image.FrameOfReferenceUID = generate_uid(entropy_srcs=[f"{study} frame"])
    image.PositionReferenceIndicator = ""
    image.ImagePositionPatient = [0, 0, 5 * place]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [1, 1]
    image.SliceThickness = 5
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = side
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.PixelData = np.full((side, side), place, np.uint16).tobytes()
    return image
