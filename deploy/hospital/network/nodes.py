"""Who talks to whom: this system's own application entity, its peers, and TLS between them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from toolkit.config.service import Peer, ServiceSettings, TlsSettings
from toolkit.errors import GradeError

CONNECT = 10.0  # seconds until an unreachable peer is given up
RESPONSE = 60.0  # seconds that a peer may take for one answer


class PeerUnavailable(GradeError):
    """A peer does not answer, refuses the association, or refuses an object; a later try may succeed."""


def peer_named(settings: ServiceSettings, name: str) -> Peer:
    """A peer of the settings.

    Raises:
        GradeError: there is no such peer.
    """
    peer = settings.peers.get(name)
    if peer is None:
        known = ", ".join(settings.peers) or "none"
        raise GradeError(f"peer {name} is unknown; known: {known}. Add [hospital.peers.{name}] to grade.toml.")
    return peer


def server_context(tls: TlsSettings | None) -> ssl.SSLContext | None:
    """TLS for incoming associations; a client without a certificate of the authority is refused."""
    return None if tls is None else _context(tls, ssl.PROTOCOL_TLS_SERVER)


def client_context(tls: TlsSettings | None) -> ssl.SSLContext | None:
    """TLS towards a peer, whose certificate and host name are checked."""
    return None if tls is None else _context(tls, ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def association(settings: ServiceSettings, name: str, contexts: list[PresentationContext]) -> Iterator[Association]:
    """An association with a peer, released at the end.

    Args:
        settings: own AE title, peers and TLS.
        name: of the peer.
        contexts: what is asked for.

    Raises:
        PeerUnavailable: it cannot be reached or refuses.
        GradeError: the peer is unknown or has no address.
    """
    peer = peer_named(settings, name)
    if not peer.host or peer.port is None:
        raise GradeError(f"peer {name} has no host and port; add them to [hospital.peers.{name}].")
    entity = ApplicationEntity(ae_title=settings.aet)
    entity.connection_timeout, entity.acse_timeout = CONNECT, CONNECT
    entity.dimse_timeout, entity.network_timeout = RESPONSE, RESPONSE
    context = client_context(settings.tls) if peer.tls else None
    secured = None if context is None else (context, peer.host)
    link = entity.associate(peer.host, peer.port, contexts=contexts, ae_title=peer.aet, tls_args=secured)
    if not link.is_established:
        why = "refuses this AE title or its presentation contexts" if link.is_rejected else "does not answer"
        raise PeerUnavailable(f"{name} ({peer.aet} at {peer.host}:{peer.port}) {why}; this side is {settings.aet}.")
    try:
        yield link
    finally:
        if link.is_established:
            link.release()


def _context(tls: TlsSettings, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.authority)
    except (OSError, ssl.SSLError) as error:
        raise GradeError(f"[hospital.tls] cannot be used: {error}; name PEM files that belong together.") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context
