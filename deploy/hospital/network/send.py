"""Objects to a peer by C-STORE, over one association."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import PresentationContext, build_context

from deploy.hospital.network.nodes import PeerUnavailable, association
from toolkit.config.service import ServiceSettings
from toolkit.errors import GradeError

VERIFICATION = "1.2.840.10008.1.1"
_WARNINGS = range(0xB000, 0xC000)  # stored, with a remark


def echo(settings: ServiceSettings, name: str) -> None:
    """Ask a peer whether it is there (C-ECHO).

    Raises:
        PeerUnavailable: it is not, or answers with an error.
    """
    with association(settings, name, [build_context(VERIFICATION)]) as link:
        status = link.send_c_echo()
        if status.get("Status") != 0x0000:
            raise PeerUnavailable(f"{name} answers C-ECHO with {_shown(status)}; ask its administrator.")


def send_files(
    files: Sequence[Path],
    settings: ServiceSettings,
    name: str,
    on_sent: Callable[[Path], None] = lambda _: None,
) -> None:
    """Store DICOM files at a peer, in order, until one is refused.

    Args:
        files: whole DICOM files.
        settings: own AE title, peers and TLS.
        name: of the peer.
        on_sent: called with each file that the peer has taken.

    Raises:
        PeerUnavailable: the peer cannot be reached, or did not take an object.
        GradeError: a file cannot be read, or the peer is unknown.
    """
    if not files:
        return
    with association(settings, name, _contexts(files)) as link:
        for file in files:
            try:
                status = link.send_c_store(file)
            except (ValueError, RuntimeError, OSError) as error:
                raise PeerUnavailable(f"{name} does not take {file.name}: {error}.") from error
            code = status.get("Status")
            if code != 0x0000 and code not in _WARNINGS:
                raise PeerUnavailable(f"{name} answers {file.name} with {_shown(status)}.")
            on_sent(file)


def _contexts(files: Sequence[Path]) -> list[PresentationContext]:
    """One context for each class and encoding of the files."""
    wanted: dict[tuple[str, str], None] = {}
    for file in files:
        try:
            meta = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
            wanted[(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))] = None
        except (OSError, InvalidDicomError, AttributeError) as error:
            raise GradeError(f"{file} cannot be sent: {error}; it is not a whole DICOM file.") from error
    if len(wanted) > 128:
        raise GradeError(f"{len(wanted)} kinds of objects are too many for one association; send fewer files at once.")
    return [build_context(kind, _syntaxes(syntax)) for kind, syntax in wanted]


def _syntaxes(syntax: str) -> list[str]:
    plain = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
    return plain if syntax in plain else [syntax]


def _shown(status: object) -> str:
    code = getattr(status, "Status", None)
    remark = getattr(status, "ErrorComment", "")
    if code is None:
        return "no status: the connection broke"
    return f"status 0x{code:04X}" + (f" ({remark})" if remark else "")
