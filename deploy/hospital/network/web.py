"""The same over DICOMweb: QIDO-RS to find, WADO-RS to fetch, STOW-RS to store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

from deploy.hospital.network.nodes import PeerUnavailable
from toolkit.files import first_line

_FAILED = "FailedSOPSequence"


def find_studies_web(address: str, match: dict[str, str]) -> list[Dataset]:
    """Studies that match, by QIDO-RS.

    Args:
        address: of the DICOMweb services.
        match: keyword -> value.

    Raises:
        PeerUnavailable: the server does not answer, or with an error.
    """
    with _answers(address) as client:
        return [Dataset.from_json(found) for found in client.search_for_studies(search_filters=match)]


def fetch_study(address: str, study: str) -> Iterator[Dataset]:
    """The instances of a study, by WADO-RS.

    Raises:
        PeerUnavailable: as `find_studies_web`.
    """
    with _answers(address) as client:
        yield from client.iter_study(study)


def store_files(files: Sequence[Path], address: str) -> None:
    """Store DICOM files, by STOW-RS.

    Raises:
        PeerUnavailable: as `find_studies_web`, or the server did not take all of them.
    """
    with _answers(address) as client:
        answer = client.store_instances([dcmread(file) for file in files])
        failed = answer.get(_FAILED, ())
        if failed:
            code = failed[0].get("FailureReason", 0)
            raise PeerUnavailable(f"{address} did not take {len(failed)} of {len(files)} objects: 0x{code:04X}.")


@contextmanager
def _answers(address: str) -> Iterator[DICOMwebClient]:
    client = DICOMwebClient(address)
    client.set_http_retry_params(retry=False)
    try:
        yield client
    except (requests.RequestException, ValueError, OSError) as error:
        raise PeerUnavailable(f"{address} does not answer as a DICOMweb server does: {first_line(error)}.") from error
