"""What an archive has (C-FIND), and bringing it here (C-MOVE to this side's own reception)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom.events import Event
from pynetdicom.presentation import build_context

from deploy.hospital.network.nodes import PeerUnavailable, association, peer_named
from deploy.hospital.network.receive import KEPT, put_image, read_identity, start_reception
from deploy.hospital.network.web import fetch_study, find_studies_web
from toolkit.config.service import ServiceSettings
from toolkit.errors import GradeError
from toolkit.files import building, put

FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve, PS3.4 C.6.2
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_PENDING = (0xFF00, 0xFF01)
_WANTED = (
    "StudyInstanceUID",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "StudyDescription",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
)
_LATE = 5.0  # seconds for images that are still on their way when C-MOVE has ended


def find_studies_at(settings: ServiceSettings, name: str, match: dict[str, str], web: bool = False) -> list[Dataset]:
    """Studies of a peer that match, by C-FIND or QIDO-RS.

    Args:
        settings: own AE title, peers and TLS.
        name: of the peer.
        match: keyword -> value, of those that every archive knows: `PatientID`, `StudyDate`, `AccessionNumber`...
        web: by DICOMweb.

    Returns:
        One data set for each study.

    Raises:
        PeerUnavailable: the peer does not answer, or with an error.
        GradeError: it is unknown or has no such address.
    """
    if web:
        return find_studies_web(_address(settings, name), match)
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    for keyword in _WANTED:
        setattr(query, keyword, match.get(keyword, ""))
    for keyword, value in match.items():
        setattr(query, keyword, value)
    found = []
    with association(settings, name, [build_context(FIND)]) as link:
        for status, study in link.send_c_find(query, FIND):
            code = status.get("Status")
            if code in _PENDING and study is not None:
                found.append(study)
            elif code != 0x0000:
                raise PeerUnavailable(f"{name} answers C-FIND with {_code(code)}; it may not know {settings.aet}.")
    return found


def pull_study(settings: ServiceSettings, name: str, study: str, out: Path, web: bool = False) -> int:
    """Fetch the MR images of a study into a folder, which appears whole or not at all.

    By C-MOVE the peer sends to this side's AE title, host and port: it has to know them, and `grade serve` must not
    have the port at the same time.

    Args:
        settings: own AE title, host and port, peers and TLS.
        name: of the peer.
        study: Study Instance UID.
        out: folder to write.
        web: by WADO-RS.

    Returns:
        How many images came; other objects are left where they are.

    Raises:
        PeerUnavailable: the peer does not answer, did not send everything, or has no image of it.
        GradeError: the folder cannot be written, or the port is taken.
    """
    with building(out, "study", GradeError) as folder:
        count = _by_web(_address(settings, name), study, folder) if web else _by_move(settings, name, study, folder)
        if not count:
            raise PeerUnavailable(f"{name} has no MR image of this study.")
        put(folder, out)
    return count


def _by_web(address: str, study: str, folder: Path) -> int:
    count = 0
    for instance in fetch_study(address, study):
        if instance.SOPClassUID in KEPT:
            instance.save_as(folder / f"{count:05d}.dcm", enforce_file_format=True)
            count += 1
    return count


class _Catcher:
    """Takes the images of one study; what else the peer may send is acknowledged and dropped."""

    def __init__(self, study: str, folder: Path) -> None:
        self._study, self._folder = study, folder
        self._guard = threading.Lock()
        self.seen = 0
        self.files: set[Path] = set()

    def store(self, event: Event) -> int:
        content = event.encoded_dataset()
        identity = read_identity(content)
        if identity is not None and identity.study == self._study and identity.kind in KEPT:
            file = put_image(self._folder, identity.instance, content)
            with self._guard:
                self.files.add(file)
        with self._guard:
            self.seen += 1
        return 0x0000


def _by_move(settings: ServiceSettings, name: str, study: str, folder: Path) -> int:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study
    catcher = _Catcher(study, folder)
    server = start_reception(settings, catcher.store, lambda _: None)
    try:
        with association(settings, name, [build_context(MOVE)]) as link:
            completed = 0
            for status, _ in link.send_c_move(query, settings.aet, MOVE):
                code = status.get("Status")
                completed = status.get("NumberOfCompletedSuboperations") or completed
                if code not in (*_PENDING, 0x0000):
                    raise PeerUnavailable(
                        f"{name} answers C-MOVE with {_code(code)}; it has to know {settings.aet} and its address."
                    )
        until = time.monotonic() + _LATE
        while catcher.seen < completed and time.monotonic() < until:
            time.sleep(0.05)
        if catcher.seen < completed:
            raise PeerUnavailable(f"{name} says it sent {completed} objects, and {catcher.seen} came.")
    finally:
        server.shutdown()
    return len(catcher.files)


def _address(settings: ServiceSettings, name: str) -> str:
    address = peer_named(settings, name).web
    if not address:
        raise GradeError(f"peer {name} has no DICOMweb address; add web to [hospital.peers.{name}].")
    return address


def _code(code: int | None) -> str:
    return "no status: the connection broke" if code is None else f"status 0x{code:04X}"


def listed(studies: list[Dataset]) -> Iterator[dict[str, str]]:
    """Each study as plain text, by the keywords that were asked for."""
    for study in studies:
        yield {keyword: _text(study.get(keyword, "")) for keyword in _WANTED}


def _text(value: object) -> str:
    many = isinstance(value, Sequence) and not isinstance(value, str)  # several values are no list of Python's
    return "\\".join(map(str, value)) if many else str(value or "")  # type: ignore[call-overload]
