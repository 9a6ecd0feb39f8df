"""The coded words of a report, in one table. `99GRADE` marks words that no public scheme has."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SCHEME = "99GRADE"

PROCEDURE = codes.LN.BrainMRI
FINDING_SITE = codes.SCT.Brain
FAMILY = codes.cid7162.ArtificialIntelligence
THRESHOLD_VALUE = codes.DCM.ThresholdValue
COMMENT = codes.DCM.Comment
NO_UNIT = codes.UCUM.NoUnits

PROBABILITY = Code("PROBHGG", SCHEME, "Calibrated probability of high-grade glioma")
THRESHOLD = Code("THRESHOLD", SCHEME, "High grade is decided from this probability")
GRADE = Code("GRADE", SCHEME, "Glioma grade proposed by the model")
VERDICT = Code("VERDICT", SCHEME, "Verdict on the answer's reliability")
POSSIBLE = Code("POSSIBLE", SCHEME, "Grade possible at the model's error rate")
FINDING = Code("GRADING", SCHEME, "Glioma grading by a model")
EVIDENCE = Code("EVIDENCE", SCHEME, "Logit of HGG minus LGG lost by occlusion")
REFUSAL = Code("REASON", SCHEME, "Reason why the study was not graded")

GRADES = {
    "LGG": Code("LGG", SCHEME, "Low-grade glioma"),
    "HGG": Code("HGG", SCHEME, "High-grade glioma"),
}
VERDICTS = {
    "single grade": Code("SINGLE_GRADE", SCHEME, "single grade"),
    "uncertain": Code("UNCERTAIN", SCHEME, "uncertain"),
    "unfamiliar": Code("UNFAMILIAR", SCHEME, "unfamiliar"),
    "undetermined": Code("UNDETERMINED", SCHEME, "undetermined"),
    "refused": Code("REFUSED", SCHEME, "refused: not graded"),
}


def coded(code: Code) -> CodedConcept:
    """A word of the table as a content item takes it."""
    return CodedConcept(code.value, code.scheme_designator, code.meaning)


def scheme() -> CodingSchemeIdentificationItem:
    """What a report says of the private scheme."""
    return CodingSchemeIdentificationItem(
        designator=SCHEME, name="Words of the glioma-grade software", responsible_organization="glioma-grade"
    )
