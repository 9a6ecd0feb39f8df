"""Ed25519 signatures of models: who exported it is known, not only that nothing broke.

What is signed is the text `grade model <fingerprint>`; the fingerprint is the SHA-256 of the manifest, which holds
those of all other files. Engines, made on the machine that predicts, are outside.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from deploy.model.folder import SIGNATURE, Model
from deploy.model.untrusted import read_plain
from toolkit.errors import GradeError, ModelError
from toolkit.files import write_file
from toolkit.plain import read_bytes

OWNER_ONLY = 0o600


def new_key(path: Path) -> Path:
    """Make a private key at `path`, readable by its owner alone, and the public one next to it.

    Returns:
        The public key's file, `<path>.pub`.

    Raises:
        GradeError: one of them exists, or cannot be written.
    """
    public = path.with_name(path.name + ".pub")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        for file, content, mode in ((path, secret, OWNER_ONLY), (public, shown, 0o644)):
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(content)
    except OSError as error:
        raise GradeError(f"key {error.filename} cannot be made: {error.strerror}; choose another name.") from error
    return public


def sign_model(model: Model, key: Path) -> Path:
    """Write `manifest.sig` into a model, whole or not at all; every file is checked before.

    Args:
        model: opened.
        key: a private Ed25519 key, PEM without a password.

    Raises:
        ModelError: a file was altered.
        GradeError: the key cannot be used, or the signature cannot be written.
    """
    model.verify()
    private = _private(key)
    file = model.folder / SIGNATURE
    write_file(file, base64.b64encode(private.sign(_message(model))) + b"\n", ModelError)
    return file


def check_signature(model: Model, key: Path) -> None:
    """Refuse a model that the owner of a key has not signed.

    Args:
        model: opened.
        key: a public Ed25519 key, PEM.

    Raises:
        ModelError: there is no signature, or it is of another model or another key.
        GradeError: the key cannot be used.
    """
    public, file = _public(key), model.folder / SIGNATURE
    try:
        if not file.exists():
            raise FileNotFoundError
        signature = base64.b64decode(read_plain(file, 2**16), validate=False)
        public.verify(signature, _message(model))
    except FileNotFoundError:
        raise ModelError(
            f"model {model.folder} is not signed: it has no {SIGNATURE}; `grade sign` makes one."
        ) from None
    except (OSError, ValueError, InvalidSignature):
        raise ModelError(
            f"{file} is no signature of this model by the owner of {key}: the manifest, the signature or the key is"
            " another; get the model from its maker again."
        ) from None


def _message(model: Model) -> bytes:
    return f"grade model {model.fingerprint}".encode()


def _public(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(read_bytes(path))
    except OSError as error:
        raise GradeError(f"key {path} cannot be read: {error.strerror}.") from error
    except (ValueError, UnsupportedAlgorithm):
        raise GradeError(f"{path} is no public key in PEM form; `grade sign --new-key` makes a pair.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise GradeError(f"{path} is no Ed25519 key; `grade sign --new-key` makes a pair.")
    return key


def _private(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(read_bytes(path), password=None)
    except OSError as error:
        raise GradeError(f"key {path} cannot be read: {error.strerror}.") from error
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise GradeError(
            f"{path} is no private key in PEM form without a password; `grade sign --new-key` makes a pair."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise GradeError(f"{path} is no Ed25519 key; `grade sign --new-key` makes a pair.")
    return key
