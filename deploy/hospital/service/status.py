"""The service's page: what waits, is worked on, is done or refused and why. It shows, and changes nothing."""

from __future__ import annotations

import hmac
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from jinja2 import Environment, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from deploy.hospital.queue import ANSWERED, RESULTS, STATES, State, Ticket
from deploy.hospital.service.serve import Health, Service
from toolkit.errors import GradeError
from toolkit.plain import read_bytes

HOST = "127.0.0.1"  # the page shows patients' ids behind no login: it never leaves this machine
PAGE = "page.html"  # of a patient, in the results
_SHOWN = 50  # studies of each state
_STALE = 30.0  # seconds without a beat after which the service counts as hanging
_DAY = 86400.0
_LARGEST = 4 << 30  # bytes of a dropped zip
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Status:
    """What the page shows, read from the folders at each request.

    Args:
        service: that runs in this process.
        labels: whether to show Patient IDs; else hashes alone.
        uploads: folder for dropped zips; None where dropping is off.
        token: that a dropped zip has to come with.
    """

    def __init__(self, service: Service, labels: bool, uploads: Path | None = None, token: str = "") -> None:
        self._queue, self._health, self._settings = service.queue, service.health, service.settings
        self._networked, self._origin = service.job.network, service.job.origin
        self._labels, self._uploads, self._token = labels, uploads, token
        page = files("deploy.hospital.service").joinpath("status.html").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters["age"] = _age
        self._page = environment.from_string(page)

    def app(self) -> Starlette:
        """The application: the page, `/status.json`, `/health`, patients' pages, and dropping where it is on."""
        routes = [
            Route("/", self._show),
            Route("/status.json", self._json),
            Route("/health", self._healthy),
            Route("/patients/{key}", self._patient),
        ]
        if self._uploads is not None:
            routes.append(Route("/studies", self._drop, methods=["POST"]))
        # A page elsewhere could otherwise read this one through a name that resolves to this machine.
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        return Starlette(routes=routes, middleware=[hosts])

    def content(self) -> dict[str, Any]:
        """Everything that the page shows."""
        now = time.time()
        rows = {state: self._rows(state, now) for state in STATES}
        answered = [row for state in ANSWERED for row in rows[state]]
        return {
            "health": self.health(),
            "counts": {state: len(rows[state]) for state in STATES},
            "studies": {state: rows[state][:_SHOWN] for state in STATES},
            "last_hour": sum(row["age"] < 3600 for row in answered),
            "last_day": sum(row["age"] < _DAY for row in answered),
            "seconds": round(sum(row["seconds"] for row in answered) / len(answered), 1) if answered else None,
            "unsent": sum(bool(row["unsent"]) for row in answered),
            "errors": [{"age": now - when, "sentence": sentence} for when, sentence in reversed(self._health.errors)],
            "uploads": self._uploads is not None,
            "aet": self._settings.aet,
            "origin": self._origin,
            "keep_days": self._settings.keep_days,
        }

    def health(self) -> dict[str, Any]:
        """Whether everything runs that has to."""
        health: Health = self._health
        free = self._free()
        roomy = free > self._settings.free_gb * 1e9
        folders = all(self._queue.path(state, "").is_dir() for state in STATES)
        beats = time.monotonic() - health.beat < _STALE
        listening = health.listening or not self._networked
        return {
            "ok": health.ready and beats and listening and roomy and folders,
            "model_open": health.ready,
            "listening": health.listening,
            "networked": self._networked,
            "beats": beats,
            "free_gb": round(free / 1e9, 1),
            "disk_roomy": roomy,
            "folders": folders,
            "up_seconds": round(time.time() - health.started),
        }

    def _free(self) -> int:
        """Bytes; none where the service's folder was deleted."""
        try:
            return shutil.disk_usage(self._queue.folder).free
        except OSError:
            return 0

    def _keys(self, state: State) -> list[str]:
        try:
            return self._queue.keys(state)
        except OSError:  # its folder was deleted, which the first line of the page says
            return []

    def _rows(self, state: State, now: float) -> list[dict[str, Any]]:
        keys = self._keys(state)
        if state in (*ANSWERED, "failed"):
            keys.reverse()  # the last ones first
        return [self._row(state, key, self._queue.ticket(state, key), now) for key in keys]

    def _row(self, state: State, key: str, ticket: Ticket, now: float) -> dict[str, Any]:
        return {
            "key": key,
            "name": (ticket.label if self._labels else "") or key[:12],
            "sender": ticket.sender,
            "images": ticket.images,
            "age": max(0.0, now - (ticket.since or self._changed(state, key) or now)),
            "grade": ticket.grade,
            "probability": ticket.probability,
            "verdict": ticket.verdict,
            "reason": ticket.reason,
            "seconds": ticket.seconds,
            "attempts": ticket.attempts,
            "unsent": list(ticket.unsent),
            "page": state == "done" and (self._queue.path(state, key) / RESULTS / PAGE).is_file(),
        }

    def _changed(self, state: State, key: str) -> float:
        try:
            return self._queue.path(state, key).stat().st_mtime
        except FileNotFoundError:  # it has moved on
            return 0.0

    async def _show(self, request: Request) -> Response:
        fresh = "refresh" in request.query_params
        return HTMLResponse(self._page.render(self.content(), fresh=fresh), headers=_HEADERS)

    async def _json(self, _: Request) -> Response:
        return JSONResponse(self.content(), headers=_HEADERS)

    async def _healthy(self, _: Request) -> Response:
        health = self.health()
        return JSONResponse(health, status_code=200 if health["ok"] else 503, headers=_HEADERS)

    async def _patient(self, request: Request) -> Response:
        key = request.path_params["key"]
        file = self._queue.path("done", key) / RESULTS / PAGE
        if key not in self._keys("done") or not file.is_file():
            return JSONResponse({"error": "there is no page of such a study"}, status_code=404, headers=_HEADERS)
        return FileResponse(file, media_type="text/html", headers=_HEADERS | {"Content-Security-Policy": _PATIENT})

    async def _drop(self, request: Request) -> Response:
        announced = request.headers.get("content-length", "")
        room = self._free() - self._settings.free_gb * 1e9
        if not announced.isdecimal() or int(announced) > min(_LARGEST, room / 2):  # once as it comes, once in its place
            return JSONResponse({"error": "there is no room for it"}, status_code=507, headers=_HEADERS)
        async with request.form(max_files=1, max_fields=2) as form:
            token, study = form.get("token"), form.get("study")
            if not isinstance(token, str) or not hmac.compare_digest(_as_bytes(token), self._token.encode()):
                return JSONResponse({"error": "wrong token"}, status_code=403, headers=_HEADERS)
            if not isinstance(study, UploadFile):
                return JSONResponse({"error": "there is no zip in the field study"}, status_code=400, headers=_HEADERS)
            name = f"drop-{time.time_ns()}.zip"  # the sender's name of the file may be a patient's
            self._save(study, name)
        return JSONResponse({"taken": name}, status_code=202, headers=_HEADERS)

    def _save(self, study: UploadFile, name: str) -> None:
        folder = self._uploads or self._queue.folder
        temporary = folder / f".{name}.tmp"
        with temporary.open("wb") as stream:
            shutil.copyfileobj(study.file, stream)
        temporary.rename(folder / name)


# The page's own viewer is inline; nothing is loaded from anywhere, this service included.
_PATIENT = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:;"
    " connect-src data: blob:"
)


def _as_bytes(token: str) -> bytes:
    """The sender names the charset of a token, and some give characters that UTF-8 does not have."""
    return token.encode(errors="surrogatepass")


def read_token(file: Path) -> str:
    """The token of a file, which its owner alone may read.

    Raises:
        GradeError: it cannot be read, others can read it, or it is short.
    """
    try:
        token = read_bytes(file).decode().strip()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise GradeError(
            f"the token {file} cannot be read: {error}; write one, or unset hospital.upload_token."
        ) from None
    if mode & 0o077:
        raise GradeError(f"the token {file} can be read by others (mode {mode & 0o777:o}); chmod 600 it.")
    if len(token) < 16:
        raise GradeError(f"the token in {file} has {len(token)} characters; use at least 16 random ones.")
    return token


@contextmanager
def showing(status: Status, port: int) -> Iterator[None]:
    """The page on loopback while the block runs.

    Raises:
        GradeError: the port cannot be opened.
    """
    settings = uvicorn.Config(
        status.app(), host=HOST, port=port, log_level="critical", access_log=False, lifespan="off"
    )
    server = uvicorn.Server(settings)
    try:
        sockets = [settings.bind_socket()]
    except SystemExit:  # uvicorn's way to say that the port is taken
        raise GradeError(
            f"port {port} of the page is taken, perhaps by another grade serve; stop it, or set hospital.page_port."
        ) from None
    thread = threading.Thread(target=server.run, args=(sockets,), name="page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(5)
        for one in sockets:
            one.close()


def _age(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3 h`, `2 d`."""
    for unit, length in (("d", _DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
