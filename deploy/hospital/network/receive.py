"""The Storage SCP: known application entities store images of magnetic resonance, which wait in the inbox.

It runs in its own process, so that receiving never waits for grading; the data set is written as it came, undecoded.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from deploy.hospital.network.nodes import server_context
from deploy.hospital.network.send import VERIFICATION
from deploy.hospital.queue import TICKET, Queue, Ticket, study_key
from toolkit.config.service import ServiceSettings
from toolkit.errors import GradeError
from toolkit.files import write_file

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
NOT_OF_THE_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
KEPT = {MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage}
_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID"]
_MOST = 32  # associations at once
_PDU = 131_072  # bytes, the most that dcmtk sends at once; each costs the same work, however small
_IDLE = 60.0  # seconds after which a silent sender is cut off


class Identity(NamedTuple):
    """What an object is, and what tells where it belongs."""

    kind: str
    instance: str
    study: str
    patient: str


class Reception:
    """Writes what associations store.

    A study's lock is held from its first image to the end of the association: the study is not complete before.

    Args:
        queue: where to.
        free_gb: GB of disk below which nothing is taken.
        labels: whether to note Patient IDs for the status page.
    """

    def __init__(self, queue: Queue, free_gb: float, labels: bool) -> None:
        self._queue, self._free, self._labels = queue, free_gb * 1e9, labels
        self._open: dict[Association, tuple[ExitStack, dict[str, Path]]] = {}
        self._guard = threading.Lock()

    def store(self, event: Event) -> int:
        """Answer one C-STORE request with a status of PS3.4 table B.2-1."""
        request = event.request
        if not isinstance(request, C_STORE) or request.AffectedSOPClassUID not in KEPT:
            return SUCCESS  # reports and pictures, our own among them, are no reason to grade anything
        content = event.encoded_dataset()
        if shutil.disk_usage(self._queue.folder).free - len(content) < self._free:
            return OUT_OF_RESOURCES
        identity = read_identity(content)
        if identity is None:
            return CANNOT_UNDERSTAND
        if identity.instance != request.AffectedSOPInstanceUID:
            return NOT_OF_THE_CLASS
        return SUCCESS if self._keep(event.assoc, identity, content) else OUT_OF_RESOURCES

    def closed(self, event: Event) -> None:
        """An association ended, in whatever way: let go of its studies."""
        with self._guard:
            held = self._open.pop(event.assoc, None)
        if held is not None:
            held[0].close()

    def _keep(self, link: Association, identity: Identity, content: bytes) -> bool:
        """Whether the disk took it; another failure of the disk ends in the status 0xC211 of pynetdicom."""
        try:
            put_image(self._folder(link, identity), identity.instance, content)
        except GradeError:  # of the ticket
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return False
            raise
        return True

    def _folder(self, link: Association, identity: Identity) -> Path:
        with self._guard:
            stack, folders = self._open.setdefault(link, (ExitStack(), {}))
        if identity.study not in folders:
            folder = stack.enter_context(self._queue.receiving(study_key(identity.study)))
            ticket = folder.parent / TICKET
            if not ticket.exists():
                label = identity.patient if self._labels else ""
                sender = str(link.requestor.ae_title).strip()
                write_file(ticket, Ticket(sender=sender, label=label).model_dump_json(indent=1))
            folders[identity.study] = folder
        return folders[identity.study]


def read_identity(content: bytes) -> Identity | None:
    """Where an image belongs, from its header; None where it does not say."""
    try:
        header = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=_TAGS)
        kind, instance, study = str(header.SOPClassUID), str(header.SOPInstanceUID), str(header.StudyInstanceUID)
        patient = str(header.get("PatientID") or "")
    except (InvalidDicomError, AttributeError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, OSError):
        return None
    return Identity(kind, instance, study, patient) if instance and study else None


def put_image(folder: Path, instance: str, content: bytes) -> Path:
    """Write an image under a name that follows from its SOP Instance UID; whole or not at all.

    Raises:
        OSError: the disk does not take it.
    """
    file = folder / f"{hashlib.sha256(instance.encode()).hexdigest()[:32]}.dcm"
    temporary = file.with_name(f".{file.name}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return file


def start_reception(
    settings: ServiceSettings, store: Callable[[Event], int], closed: Callable[[Event], None]
) -> ThreadedAssociationServer:
    """Listen. Only peers of the settings, which call this AE title, get an association.

    Raises:
        GradeError: no peer is known, or the port is taken.
    """
    if not settings.peers:
        raise GradeError("no peer is known, so no one could send; add [hospital.peers.NAME] with an aet to grade.toml.")
    entity = ApplicationEntity(ae_title=settings.aet)
    entity.require_called_aet = True
    entity.require_calling_aet = sorted({peer.aet for peer in settings.peers.values()})
    entity.maximum_associations = _MOST
    entity.network_timeout = _IDLE
    entity.maximum_pdu_size = _PDU
    # All storage classes in every encoding, without a list of 190 that each association copies (0.1 s of processor).
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    entity.add_supported_context(VERIFICATION)
    handlers: list[Any] = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_CONN_CLOSE, closed),
    ]
    address = (settings.host, settings.port)
    try:
        server = entity.start_server(
            address, block=False, ssl_context=server_context(settings.tls), evt_handlers=handlers
        )
    except OSError as error:
        raise GradeError(
            f"port {settings.port} of {settings.host} cannot be opened: {error.strerror}; set hospital.port."
        ) from error
    if server is None:  # only a blocking call gives none
        raise GradeError("the port was not opened.")
    return server


def receive(settings: ServiceSettings, labels: bool, parent: Connection) -> None:
    """The process of reception: listens until the parent says so, or is gone.

    Args:
        settings: see `start_reception`.
        labels: see `Reception`.
        parent: says `""` once the port is open, or the sentence of an error.
    """
    reception = Reception(Queue(settings.folder), settings.free_gb, labels)
    try:
        server = start_reception(settings, reception.store, reception.closed)
    except GradeError as error:
        parent.send(str(error))
        return
    parent.send("")
    with suppress(EOFError):  # the parent was killed
        parent.recv()
    server.shutdown()
