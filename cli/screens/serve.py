"""`grade serve` in the terminal, or in the journal of systemd: one line for each thing that happens, without names."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from cli.console import hidden, say
from deploy.hospital.answer import AnswerOptions, open_answerer
from deploy.hospital.service.serve import Job, Service
from deploy.model.folder import open_model
from deploy.runtime import Choice
from toolkit.config.hospital import HospitalSettings
from toolkit.errors import GradeError

UPLOADS = "uploads"


class Wanted(NamedTuple):
    """What the command line asks for."""

    model: Path
    choice: Choice
    network: bool
    watch: Path | None
    page: bool
    reports: bool


def serve(settings: HospitalSettings, wanted: Wanted) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        GradeError: see `Service.run`; or the page cannot be opened.
    """
    opened = open_model(wanted.model)
    options = AnswerOptions(wanted.model.absolute(), wanted.choice, settings.series, settings.objects, wanted.reports)
    labels = not hidden  # grade --no-phi serve
    if origin := opened.manifest.training.origin:
        say(origin)
    job = Job(
        settings=settings,
        open_answerer=partial(open_answerer, options),
        model=opened.fingerprint,
        network=wanted.network,
        watch=wanted.watch,
        labels=labels,
        say=say,
        origin=origin,
    )
    uploads, token = _uploads(settings)
    if uploads is not None:
        if wanted.watch is not None:
            raise GradeError("--watch and hospital.upload_token exclude each other; use one of them.")
        job = replace(job, watch=uploads)
    service = Service(job)

    def stop(_number: int, _frame: FrameType | None) -> None:
        say("stopping after the study in hand")
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with ExitStack() as stack:
        if wanted.page and settings.page_port is not None:
            from deploy.hospital.service.status import HOST, Status, showing

            stack.enter_context(showing(Status(service, labels, uploads, token), settings.page_port))
            say(f"page: http://{HOST}:{settings.page_port}/")
        if wanted.network:
            say(f"{settings.aet} receives at {settings.host}:{settings.port}; studies in {settings.folder}")
        service.run()
    say("stopped")


def _uploads(settings: HospitalSettings) -> tuple[Path | None, str]:
    if settings.upload_token is None:
        return None, ""
    from deploy.hospital.service.status import read_token

    token = read_token(settings.upload_token)
    folder = settings.folder / UPLOADS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder, token
