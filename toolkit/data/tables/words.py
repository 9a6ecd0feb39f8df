"""Words in tables: what stands for nothing, which spellings are one site, which headers mean what."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Without case, spaces and punctuation. Numbers: what EGD and statistics programs write for a missing value.
_MISSING = {
    *(
        "",
        "na",
        "nan",
        "none",
        "null",
        "nil",
        "unknown",
        "unk",
        "unspecified",
        "undefined",
        "missing",
        "blank",
        "empty",
    ),
    *("notavailable", "notapplicable", "notknown", "notreported", "notspecified", "notrecorded", "nodata", "tbd"),
}
_MISSING_NUMBERS = re.compile(r"-(1|9|99|999|9999)([.,]0+)?")


def missing(text: str) -> bool:
    """Whether a cell stands for nothing: empty, `NA`, `n/a`, `unknown`, `-`, `None`, `[Not Available]`, -1..."""
    return plain(text) in _MISSING or bool(_MISSING_NUMBERS.fullmatch(text))


def plain(text: str) -> str:
    """Text without case, spaces and punctuation; what stands between two digits stays a mark."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    folded = re.sub(r"(?<=\d)[\W_]+(?=\d)", "·", folded)  # 1-1 is not 11
    return re.sub(r"[^\w·]|_", "", folded)


def one_spelling(sites: Sequence[str | None]) -> tuple[str | None, ...]:
    """Sites, each in its most frequent spelling (the first one of equally frequent), None where it stands for nothing.

    Args:
        sites: as they were written; those that differ in case, spaces or punctuation alone are one.
    """
    counts: dict[str, Counter[str]] = {}
    for site in sites:
        if site and not missing(site):
            counts.setdefault(plain(site), Counter())[site] += 1
    spelled = {key: spellings.most_common(1)[0][0] for key, spellings in counts.items()}
    return tuple(spelled[plain(site)] if site and not missing(site) else None for site in sites)


# A header means something when all its words are known ones and one of them is a noun of that meaning. So `Patient Age`
# is no column of ids, and `Tumor Site` none of sites.
_ID_NOUNS = {
    *("id", "ids", "identifier", "patient", "subject", "case", "participant", "barcode", "pseudonym", "pid", "mrn"),
    *("brats", "patientid", "subjectid", "caseid", "participantid", "folder", "directory"),
}
_ID_WORDS = {
    *("tcga", "tcia", "upenn", "ucsf", "pdgm", "gbm", "gli", "egd", "lumiere", "rembrandt", "cptac", "ivygap", "bids"),
    *("person", "individual", "sample", "scan", "image", "imaging", "mri", "mr", "dataset", "data", "record", "study"),
    *("research", "local", "original", "new", "old", "anonymized", "anonymised", "anonymous", "deidentified", "bcr"),
    *("pseudonymized", "pseudonymised", "submitter", "no", "nr", "number", "num", "code", "key", "unique", "internal"),
    *("public", "pat", "pt", "subj", "patienten", "glioma", "training", "cohort", "name", "file", "folder"),
}
_NAMES = {"name", "patient name", "subject name", "case name", "participant name", "folder name", "directory name"}
_GRADE_NOUNS = ("grade", "grades", "grading", "class", "label", "labels")  # in the order in which they are preferred
_GRADE_WORDS = {
    *("who", "cns", "tumor", "tumour", "glioma", "histological", "histologic", "histopathological", "histopathologic"),
    *("pathological", "pathologic", "pathology", "neoplasm", "final", "the", "of", "brats", "true", "known"),
}
_SITE_NOUNS = {"site", "sites", "centre", "center", "institution", "institute", "hospital", "clinic"}
_SITE_WORDS = {
    *("id", "name", "no", "nr", "number", "num", "code", "scan", "scanning", "imaging", "acquisition", "source"),
    *("contributing", "data", "study", "represents", "the", "originating", "tissue", "of", "origin", "treating"),
}


def header_words(header: str) -> list[str]:
    """The words of a header, without numbers: `BraTS_2018_subject_ID` is brats, subject, id."""
    header = re.sub("brats", " brats ", unicodedata.normalize("NFKC", header), flags=re.IGNORECASE)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", header)
    return re.findall(r"[^\W\d_]+", spaced.casefold())


def names_ids(header: str) -> bool:
    """Whether a header says that its column holds patients' ids."""
    words = header_words(header)
    if "name" in words or "file" in words:
        return " ".join(words) in _NAMES
    return _means(words, _ID_NOUNS, _ID_WORDS)


def names_grades(header: str) -> int | None:
    """How directly a header says that its column holds grades, 0 the most; None where it does not."""
    words = header_words(header)
    if not _means(words, set(_GRADE_NOUNS), _GRADE_WORDS):
        return None
    return min(index for index, noun in enumerate(_GRADE_NOUNS) if noun in words)


def names_sites(header: str) -> bool:
    """Whether a header says that its column holds sites."""
    return _means(header_words(header), _SITE_NOUNS, _SITE_WORDS)


def _means(words: list[str], nouns: set[str], others: set[str]) -> bool:
    return any(word in nouns for word in words) and all(word in nouns or word in others for word in words)
