"""`[hospital]`: the archive that studies come from, where answers go, and how `grade serve` works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from toolkit.config.values import Address, SettingPath
from toolkit.frozen import Frozen

AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?$")]  # PS3.5: no backslash
Port = Annotated[int, Field(ge=1, le=65535)]
Kind = Literal["sr", "sr3d", "sc", "pdf", "map"]


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # TOML knows no tuples


class Peer(Frozen, strict=True):
    """`[hospital.peers.NAME]`: another system. One without host and port may send, and is never sent to."""

    aet: AeTitle
    host: Address = ""
    port: Port | None = None
    web: Address = Field("", pattern=r"^(https?://.+)?$", description="address of its DICOMweb services")
    tls: bool = Field(False, description="C-STORE, C-FIND and C-MOVE over TLS with [hospital.tls]")


class TlsSettings(Frozen, strict=True):
    """`[hospital.tls]`: PEM files. With them, reception takes TLS alone, from peers whose certificate is signed."""

    certificate: SettingPath
    key: SettingPath
    authority: SettingPath = Field(description="certificate that signs those of the peers")


class ServiceSettings(Frozen, strict=True):
    """What `grade serve`, `send`, `pull` and `pacs` read."""

    folder: SettingPath = Field(Path("hospital"), description="received studies and their answers, by state")
    aet: AeTitle = "GRADE"
    host: Address = Field("127.0.0.1", description="address to listen on")
    port: Port = 11112
    peers: dict[str, Peer] = Field(default_factory=dict)
    destinations: Annotated[tuple[str, ...], BeforeValidator(_to_tuple)] = Field((), description="names of peers")
    objects: Annotated[tuple[Kind, ...], BeforeValidator(_to_tuple)] = ("sr", "sc")
    quiet: float = Field(30.0, gt=0, description="seconds without an image after which a study is complete")
    attempts: int = Field(3, ge=1, description="how often a study is tried before it counts as failed")
    send_attempts: int = Field(12, ge=1, description="how often an answer is sent before it counts as failed")
    send_pause: float = Field(30.0, gt=0, description="seconds until an answer is sent again; doubled up to an hour")
    keep_days: float = Field(7.0, gt=0, description="after which images and answers are deleted")
    free_gb: float = Field(5.0, ge=0, description="GB of disk below which images are refused")
    page_port: Port | None = Field(11180, description="of the status page, on loopback")
    upload_token: SettingPath | None = Field(None, description="file whose token lets studies be dropped on the page")
    tls: TlsSettings | None = None

    @model_validator(mode="after")
    def _known_destinations(self) -> ServiceSettings:
        for name in self.destinations:
            peer = self.peers.get(name)
            if peer is None:
                raise ValueError(f"destination {name} is not among the peers; add [hospital.peers.{name}]")
            if not peer.web and (not peer.host or peer.port is None):
                raise ValueError(f"destination {name} has neither host and port nor web; add them")
            if peer.tls and self.tls is None:
                raise ValueError(f"peer {name} wants TLS; add [hospital.tls]")
        return self
