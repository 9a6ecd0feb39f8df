"""Who an answer is about and who gave it: the study's head, the images used, and UIDs that a repeat reproduces."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from pydicom.dataset import Dataset
from pydicom.uid import UID

from deploy.results.record import Record

MANUFACTURER = "glioma-grade"
MODEL_NAME = "grade"
RESEARCH = "Research use only; not a medical device."
# Any fixed UUID does: it only keeps these UIDs apart from those that others derive from the same words.
_NAMESPACE = uuid.UUID("6f0b6f39-4c1e-5d0a-9a63-1f4f9f1d2b7e")
# Attributes that an answer must have, possibly empty (type 2), and that a sloppy sender leaves out.
_HEAD = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_LEFT_OUT = ("SpecificCharacterSet", "PixelData")


@dataclass(frozen=True)
class Answer:
    """One study's answer, ready to be written as DICOM.

    Attributes:
        record: the graded or refused patient.
        model: fingerprint of the model.
        images: headers of the study's images, at least one; patient and study are copied from the first.
        used: modality -> headers of the images that were graded, in slice order; empty when refused before.
        version: of this software.
        origin: where the model comes from, in a sentence that every object then says; empty unless it must be said.
    """

    record: Record
    model: str
    images: Sequence[Dataset]
    used: Mapping[str, Sequence[Dataset]] = field(default_factory=dict)
    version: str = field(default_factory=lambda: version("glioma-grade"))
    origin: str = ""

    @property
    def study(self) -> str:
        """Study Instance UID."""
        return str(self.images[0].StudyInstanceUID)

    @property
    def use(self) -> str:
        """What it may be used for, as descriptions of series say it."""
        return "NEVER FOR PATIENTS" if self.origin else "RESEARCH USE"

    def uid(self, kind: str, what: str) -> UID:
        """A UID for the `what` (`series`, `instance`) of an object of a kind, see `derive_uid`."""
        return derive_uid(self.model, self.study, kind, what)


def derive_uid(*words: str) -> UID:
    """A UID that follows from words alone.

    The words of an answer are the model's fingerprint and the study: a repeat, and an answer after late slices, take
    the place of the earlier one instead of appearing next to it.

    Source: DICOM PS3.5 B.2 (UUID-derived UIDs), RFC 9562 5.5 (name-based UUIDs).
    """
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(words)).int}")


def complete_head(image: Dataset) -> Dataset:
    """A header with every type 2 attribute of patient and study, empty where the sender left it out.

    The character set is left out: highdicom refuses those that begin with an empty value, as every Japanese one does.
    `keep_characters` puts it back.
    """
    head = Dataset()
    head.update({element.tag: element for element in image if element.keyword not in _LEFT_OUT})
    for keyword in _HEAD:
        if keyword not in head:
            setattr(head, keyword, "")
    return head


def keep_characters(instance: Dataset, image: Dataset) -> Dataset:
    """Give an object the character set of the study's images, in which its names are then written."""
    if "SpecificCharacterSet" in image:
        instance.SpecificCharacterSet = image.SpecificCharacterSet
    elif "SpecificCharacterSet" in instance:
        del instance.SpecificCharacterSet
    return instance


def plain(text: str) -> str:
    """Text that every character set can hold: what is not ASCII is written as its code point."""
    return text.encode("ascii", "backslashreplace").decode()
