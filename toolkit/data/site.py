"""What an id tells: the site of a scan, and which ids are the same person."""

from __future__ import annotations

import re

# BraTS 2017-2019, e.g. Brats18_TCIA09_451_1: institution, then the patient's number there, then the scan.
_BRATS = re.compile(r"^brats1[789]_(?P<site>2013|[a-z]+\d*)_(?P<subject>\w+?)_\d+$", re.IGNORECASE)
# Two parts, subject and time point: BraTS-GLI-00000-000, UPENN-GBM-00001_11.
_TIME_POINT = re.compile(r"^(?P<subject>brats-[a-z]+-\d+)-\d{3}$|^(?P<upenn>upenn-gbm-\d+)_\d+$", re.IGNORECASE)


def site_of(patient_id: str) -> str | None:
    """The site named in a BraTS 2017-2019 id, else None.

    Args:
        patient_id: for example `Brats18_TCIA09_451_1`, which gives `TCIA09`.
    """
    match = _BRATS.match(patient_id.rsplit("/", 1)[-1])
    return match["site"].upper() if match else None


def subject_of(patient_id: str) -> str:
    """The person behind an id: time points of one subject, and a BraTS patient of several years, give the same.

    Args:
        patient_id: without folders; `Brats17_TCIA_451_1` and `Brats18_TCIA09_451_1` give the same; an id of no known
            form gives itself.
    """
    name = patient_id
    if match := _BRATS.match(name):
        site = match["site"].lower()
        institution = site if site == "2013" else site.rstrip("0123456789")  # TCIA09 was plain TCIA in 2017
        return f"brats_{institution}_{match['subject'].lower()}"
    if match := _TIME_POINT.match(name):
        return (match["subject"] or match["upenn"]).lower()
    return name
