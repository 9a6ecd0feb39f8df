"""TLS by certificate: reception takes those whom the authority signed, and sending checks the peer."""

from __future__ import annotations

import datetime
import gc
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.hospital.network.nodes import PeerUnavailable
from deploy.hospital.network.receive import start_reception
from deploy.hospital.network.send import echo
from tests.deploy.hospital.ward import ward_settings
from toolkit.config.service import Peer, TlsSettings
from toolkit.errors import GradeError

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see test_service


@pytest.fixture(autouse=True)
def _collected():
    """Those sockets are collected here, where the warning is expected."""
    yield
    gc.collect()


def make_tls(folder: Path) -> TlsSettings:
    """A fresh authority with one certificate for 127.0.0.1."""
    folder.mkdir()
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def build(name: str, subject: ec.EllipticCurvePrivateKey, top: bool) -> x509.Certificate:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)]) for word in (name, "authority")]
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(subject.public_key())
        )
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(here, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=top, path_length=None), critical=True)
        return builder.sign(authority, hashes.SHA256())

    def store(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    pem = serialization.Encoding.PEM
    key = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return TlsSettings(
        certificate=store("own.pem", build("own", own, False).public_bytes(pem)),
        key=store("own.key", key),
        authority=store("authority.pem", build("authority", authority, True).public_bytes(pem)),
    )


def test_only_those_whom_the_authority_signed(tmp_path: Path) -> None:
    ours, theirs = make_tls(tmp_path / "ours"), make_tls(tmp_path / "theirs")
    receiving = ward_settings(tmp_path / "hospital", tls=ours, peers={"SELF": Peer(aet="GRADE")})
    server = start_reception(receiving, lambda _: 0x0000, lambda _: None)
    try:

        def peer(secured: bool) -> dict[str, Peer]:
            return {"IT": Peer(aet="GRADE", host="127.0.0.1", port=receiving.port, tls=secured)}

        echo(ward_settings(tmp_path / "a", tls=ours, peers=peer(True)), "IT")
        with pytest.raises(PeerUnavailable):
            echo(ward_settings(tmp_path / "b", tls=theirs, peers=peer(True)), "IT")
        with pytest.raises(PeerUnavailable):
            echo(ward_settings(tmp_path / "c", peers=peer(False)), "IT")
    finally:
        server.shutdown()


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    ours, theirs = make_tls(tmp_path / "ours"), make_tls(tmp_path / "theirs")
    mixed = ours.model_copy(update={"key": theirs.key})
    settings = ward_settings(tmp_path / "hospital", tls=mixed)
    with pytest.raises(GradeError, match=r"\[hospital.tls\] cannot be used"):
        start_reception(settings, lambda _: 0x0000, lambda _: None)
