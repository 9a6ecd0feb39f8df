"""The answer as a structured report (TID 1500): values and words as coded content, never as a picture of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import highdicom as hd
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom

from deploy.hospital.results import codes
from deploy.hospital.results.identity import (
    MANUFACTURER,
    MODEL_NAME,
    RESEARCH,
    Answer,
    complete_head,
    derive_uid,
    keep_characters,
    plain,
)

SERIES = {"sr": 9801, "sr3d": 9802}  # above what scanners count to
_CLASSES = {"sr": ComprehensiveSR, "sr3d": Comprehensive3DSR}


def build_report(answer: Answer, kind: str = "sr") -> Dataset:
    """A preliminary, unverified report of one study.

    Args:
        answer: of a graded or a refused study.
        kind: `sr`, which most archives take, or `sr3d`.

    Returns:
        The object, in explicit VR little endian.
    """
    content = MeasurementReport(
        observation_context=_observer(answer),
        procedure_reported=codes.PROCEDURE,
        imaging_measurements=[_group(answer)],
        title=dicom.cid7021.ImagingMeasurementReport,
    )
    content[0].ContentSequence.extend(_comments(answer))
    images = [complete_head(image) for image in _evidence(answer)]
    report: Dataset = _CLASSES[kind](
        evidence=images,
        content=content[0],
        series_instance_uid=answer.uid(kind, "series"),
        series_number=SERIES[kind],
        sop_instance_uid=answer.uid(kind, "instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=answer.version,
        device_serial_number=answer.model[:12],
        series_description=f"Glioma grading report ({answer.use})",
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[codes.scheme()],
    )
    return keep_characters(report, answer.images[0])


def _evidence(answer: Answer) -> list[Dataset]:
    """The images that the answer rests on: those graded, or of a refused study all that there were."""
    used = [image for images in answer.used.values() for image in images]
    return used or list(answer.images)


def _observer(answer: Answer) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=derive_uid(answer.model),
        name=f"{MODEL_NAME} {answer.version}",
        manufacturer_name=MANUFACTURER,
        model_name=f"model {answer.model[:12]}",
    )
    return ObservationContext(
        observer_device_context=ObserverContext(observer_type=dicom.DCM.Device, observer_identifying_attributes=device)
    )


def _group(answer: Answer) -> MeasurementsAndQualitativeEvaluations:
    record = answer.record
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derive_uid(answer.model, answer.study, "tracking"), identifier="glioma grading"
        ),
        finding_type=codes.coded(codes.FINDING),
        finding_sites=[FindingSite(anatomic_location=codes.FINDING_SITE)],
        algorithm_id=AlgorithmIdentification(
            name=MODEL_NAME,
            version=answer.version,
            manufacturer=MANUFACTURER,
            family=codes.FAMILY,
            parameters=[f"model sha256 {answer.model}", plain(f"runtime {record.runtime}")],
        ),
        measurements=list(_measurements(answer)) or None,
        qualitative_evaluations=list(_evaluations(answer)),
        source_images=[SourceImageForMeasurementGroup(*_reference(image)) for image in _evidence(answer)],
    )


def _reference(image: Dataset) -> tuple[str, str]:
    return str(image.SOPClassUID), str(image.SOPInstanceUID)


def _measurements(answer: Answer) -> Iterator[Measurement]:
    record = answer.record
    if record.probability is None:
        return
    for name, value in ((codes.PROBABILITY, record.probability), (codes.THRESHOLD, record.threshold)):
        yield Measurement(name=codes.coded(name), value=value, unit=codes.NO_UNIT)


def _evaluations(answer: Answer) -> Iterator[QualitativeEvaluation]:
    record = answer.record
    if record.grade is not None:
        yield QualitativeEvaluation(codes.coded(codes.GRADE), codes.coded(codes.GRADES[record.grade]))
    yield QualitativeEvaluation(codes.coded(codes.VERDICT), codes.coded(codes.VERDICTS[record.verdict or "refused"]))
    for grade in record.grades:
        yield QualitativeEvaluation(codes.coded(codes.POSSIBLE), codes.coded(codes.GRADES[grade]))


def _comments(answer: Answer) -> Iterator[Any]:
    """The container of qualitative evaluations (TID 1500 rows 10 to 12): sentences for the reader."""
    record = answer.record
    container = hd.sr.ContainerContentItem(
        name=hd.sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    items = hd.sr.ContentSequence()
    if record.grade is None:
        items.append(_text(codes.coded(codes.REFUSAL), record.reason))
    for sentence in filter(None, (answer.origin, record.explanation, *record.notes, RESEARCH)):
        items.append(_text(codes.coded(codes.COMMENT), sentence))
    container.ContentSequence = items
    yield container


def _text(name: hd.sr.CodedConcept, sentence: str) -> TextContentItem:
    return TextContentItem(name=name, value=plain(sentence), relationship_type=RelationshipTypeValues.CONTAINS)


def read_values(report: Dataset) -> dict[str, Any]:
    """What a report says, read back by names of the table: numbers, codes' values and sentences.

    Args:
        report: as `build_report` makes it, also after a journey through an archive.

    Returns:
        `probability`, `threshold`, `grade`, `verdict`, `reason`; None where the report has none.
    """
    names = {
        codes.PROBABILITY.value: "probability",
        codes.THRESHOLD.value: "threshold",
        codes.GRADE.value: "grade",
        codes.VERDICT.value: "verdict",
        codes.REFUSAL.value: "reason",
    }
    found: dict[str, Any] = dict.fromkeys(names.values())
    for item in _walk(report):
        name = item.ConceptNameCodeSequence[0] if "ConceptNameCodeSequence" in item else None
        if name is None or name.CodingSchemeDesignator != codes.SCHEME or name.CodeValue not in names:
            continue
        found[names[name.CodeValue]] = _value(item)
    return found


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _walk(child)


def _value(item: Dataset) -> Any:
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0]
        return float(measured.get("FloatingPointValue", measured.NumericValue))
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeValue)
    return str(item.TextValue)
