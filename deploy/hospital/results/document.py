"""The answer's sheet as a PDF inside a DICOM object, for archives and portals that show documents."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime

from highdicom import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from deploy.hospital.results.capture import draw_sheet
from deploy.hospital.results.identity import MANUFACTURER, MODEL_NAME, Answer, complete_head, keep_characters
from deploy.hospital.results.pictures import Level

SERIES = 9804


def build_document(answer: Answer, levels: Sequence[Level]) -> Dataset:
    """An encapsulated PDF of one study; arguments as of `build_capture`."""
    head, title = complete_head(answer.images[0]), _title(answer)
    document = SOPClass(
        study_instance_uid=answer.study,
        series_instance_uid=answer.uid("pdf", "series"),
        series_number=SERIES,
        sop_instance_uid=answer.uid("pdf", "instance"),
        sop_class_uid=EncapsulatedPDFStorage,
        instance_number=1,
        modality="DOC",
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=answer.version,
        device_serial_number=answer.model[:12],
        series_description=title,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id=head.PatientID,
        patient_name=head.PatientName,
        patient_birth_date=head.PatientBirthDate,
        patient_sex=head.PatientSex,
        accession_number=head.AccessionNumber,
        study_id=head.StudyID,
        study_date=head.StudyDate,
        study_time=head.StudyTime,
        referring_physician_name=head.ReferringPhysicianName,
    )
    document.copy_patient_and_study_information(head)
    document.ConversionType = "WSD"
    document.BurnedInAnnotation = "NO"
    document.RecognizableVisualFeatures = "NO"
    document.AcquisitionDateTime = ""
    document.DocumentTitle = title
    document.ConceptNameCodeSequence = []
    document.VerificationFlag = "UNVERIFIED"
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    content = _pdf(answer, levels)
    document.EncapsulatedDocumentLength = len(content)
    document.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return keep_characters(document, answer.images[0])


def _title(answer: Answer) -> str:
    return f"Glioma grading ({answer.use})"


def _pdf(answer: Answer, levels: Sequence[Level]) -> bytes:
    stream = io.BytesIO()
    figure = draw_sheet(answer, levels)
    about = {"Title": _title(answer), "Creator": f"grade {answer.version}", "CreationDate": datetime.now().astimezone()}
    figure.savefig(stream, format="pdf", metadata=about, facecolor=figure.get_facecolor())
    return stream.getvalue()
