"""A ward for the tests: a service on loopback, an archive that keeps what it is sent, and senders."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseServer
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts, build_context

from deploy.hospital.service.serve import Job, Service
from deploy.hospital.service.work import OpenAnswerer
from tests.deploy.hospital.quick import MODEL, quick
from tests.forked import forked_parts
from toolkit.config.service import Peer, ServiceSettings
from toolkit.errors import GradeError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float = 90.0, what: str = "") -> Any:
    """What the condition gives once it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


class Archive:
    """Keeps each object by its UID, as an archive that overwrites does; counts how often each came."""

    def __init__(self, port: int | None = None, status: int = 0x0000) -> None:
        self.port, self.status = port or free_port(), status
        self.objects: dict[str, Dataset] = {}
        self.times: Counter[str] = Counter()
        self._guard = threading.Lock()
        self._entity = AE("PACS")
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(context.abstract_syntax)
        self._entity.add_supported_context("1.2.840.10008.1.1")
        self._server: Any = None

    def open(self) -> None:
        handlers = [(evt.EVT_C_STORE, self._store)]
        with prompt():
            self._server = self._entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[Archive]:
        """One that is open, and closed in the end."""
        archive = cls()
        archive.open()
        try:
            yield archive
        finally:
            archive.close()

    def reports(self) -> dict[str, Dataset]:
        """Study UID -> its report."""
        return {str(one.StudyInstanceUID): one for one in self.objects.values() if one.Modality == "SR"}

    def _store(self, event: Any) -> int:
        if self.status == 0x0000:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            with self._guard:
                self.objects[str(dataset.SOPInstanceUID)] = dataset
                self.times[str(dataset.SOPInstanceUID)] += 1
        return self.status


def send(
    images: list[Dataset], port: int, aet: str = "SCANNER", called: str = "GRADE", pause: float = 0.0
) -> list[int | None]:
    """Store images over one association; the status of each, None where the connection broke; [] when rejected."""
    entity = AE(aet)
    contexts = [build_context(kind) for kind in {str(MRImageStorage), *(str(image.SOPClassUID) for image in images)}]
    link = entity.associate("127.0.0.1", port, contexts=contexts, ae_title=called)
    if not link.is_established:
        return []
    statuses = []
    for image in images:
        statuses.append(link.send_c_store(image).get("Status"))
        time.sleep(pause)
    link.release()
    return statuses


@contextmanager
def prompt() -> Iterator[None]:
    """Servers of pynetdicom that begin inside notice at once that they are to end; else they look twice a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseServer.serve_forever, "__defaults__", (0.02,))
        yield


def ward_settings(folder: Path, archive: Archive | None = None, **changes: Any) -> ServiceSettings:
    """Settings of a service that answers in a blink."""
    peers = {"SCANNER": Peer(aet="SCANNER")}
    destinations: tuple[str, ...] = ()
    if archive is not None:
        peers["PACS"] = Peer(aet="PACS", host="127.0.0.1", port=archive.port)
        destinations = ("PACS",)
    values: dict[str, Any] = {
        "folder": folder,
        "port": free_port(),
        "peers": peers,
        "destinations": destinations,
        "quiet": 0.4,
        "free_gb": 0.0,
        "send_pause": 0.2,
        "page_port": None,
    }
    return ServiceSettings(**(values | changes))


@contextmanager
def serving(settings: ServiceSettings, answerer: OpenAnswerer | None = None, **changes: Any) -> Iterator[Service]:
    """A service in a thread; its reception and worker are real processes, forked from here."""
    lines: list[str] = []
    service = Service(Job(settings, answerer or quick(), MODEL, say=lines.append, **changes))
    failure: list[GradeError | OSError] = []

    def run() -> None:
        try:
            service.run()
        except (GradeError, OSError) as error:  # shown by the test that waits
            failure.append(error)

    thread = threading.Thread(target=run)
    with forked_parts(), prompt():
        thread.start()
        try:
            networked = changes.get("network", True)
            wait_until(
                lambda: failure or (service.health.ready and (service.health.listening or not networked)),
                what="the service is up",
            )
            if failure:
                raise failure[0]
            yield service
        finally:
            service.stop()
            thread.join(60)
    assert not failure, failure
