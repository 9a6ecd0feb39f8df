"""The service: each study answered once, under the same UIDs when more comes, and nothing taken from strangers."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import time
from pathlib import Path

import pydicom
import pytest

from deploy.hospital.queue import STATES, Queue, study_key
from deploy.results.audit import verify_audit
from tests.campaign.service import killed
from tests.deploy.hospital.quick import MISSING, broken, quick
from tests.deploy.hospital.tiny import images_of, tiny_study, write_study
from tests.deploy.hospital.ward import Archive, send, serving, wait_until, ward_settings
from toolkit.errors import GradeError

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected():
    """Those sockets are collected here, where the warning is expected."""
    yield
    gc.collect()


@pytest.fixture
def archive():
    with Archive.opened() as archive:
        yield archive


def key_of(images: list) -> str:
    return study_key(str(images[0].StudyInstanceUID))


def events(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "service.jsonl").read_text().splitlines()
    return [(line["event"], line["study"]) for line in map(json.loads, lines)]


def settled(service, key: str) -> str:
    """The state of a study once its answer is sent, else nothing."""
    state = service.queue.state_of(key)
    at_rest = state in ("done", "refused") and not service.queue.ticket(state, key).unsent
    return state if at_rest or state == "failed" else ""


def test_a_study_is_answered_refused_repeated_and_reopened(tmp_path: Path, archive: Archive) -> None:
    settings = ward_settings(tmp_path / "hospital", archive)
    first, refused = images_of(tiny_study(1)), images_of(tiny_study(13))
    with serving(settings) as service:
        assert send(first[:-1], settings.port) == [0x0000] * 7
        assert send(refused, settings.port) == [0x0000] * 8
        wait_until(lambda: settled(service, key_of(first)) == "done", what="answered")
        wait_until(lambda: settled(service, key_of(refused)) == "refused", what="refused")
        assert archive.reports()[first[0].StudyInstanceUID].InstanceNumber == 7
        assert archive.reports()[refused[0].StudyInstanceUID].SeriesDescription == MISSING
        # The same again changes nothing, a late slice is answered under the same UIDs, our own report is no study.
        send(first[:-1], settings.port)
        wait_until(lambda: ("repeated", key_of(first)) in events(settings.folder), what="noticed as repeated")
        send(first[-1:], settings.port)
        wait_until(
            lambda: archive.reports()[first[0].StudyInstanceUID].InstanceNumber == 8,
            what="answered with the late slice",
        )
        assert send(list(archive.objects.values()), settings.port) == [0x0000] * 2
        time.sleep(0.6)
        assert service.queue.keys("incoming") == service.queue.keys("ready") == []
    assert sorted(archive.times.values()) == [1, 2]
    told = events(settings.folder)
    assert told.count(("answered", key_of(first))) == told.count(("sent", key_of(first))) == 2
    assert told.count(("answered", key_of(refused))) == told.count(("sent", key_of(refused))) == 1
    assert verify_audit(settings.folder / "service.jsonl").lines == len(told)
    text = (settings.folder / "service.jsonl").read_text()
    assert "PHANTOM" not in text
    assert "P00001" not in text
    assert first[0].StudyInstanceUID not in text
    for state in STATES:
        assert (settings.folder / state).stat().st_mode & 0o077 == 0


def test_strangers_and_garbage(tmp_path: Path) -> None:
    settings = ward_settings(tmp_path / "hospital")
    images = images_of(tiny_study(1))
    with serving(settings) as service:
        assert send(images, settings.port, aet="STRANGER") == []
        assert send(images, settings.port, called="ANYBODY") == []
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\x01\x00\xff\xff\xff\xff", b""):
            with socket.create_connection(("127.0.0.1", settings.port), timeout=5) as link:
                link.sendall(garbage)
        assert service.queue.keys("incoming") == []
        assert send(images, settings.port) == [0x0000] * 8
        wait_until(lambda: settled(service, key_of(images)) == "done", what="answered")


def test_an_open_association_holds_its_study_back_and_a_broken_one_does_not(tmp_path: Path) -> None:
    from pydicom.uid import MRImageStorage
    from pynetdicom import AE

    settings = ward_settings(tmp_path / "hospital", quiet=0.3)
    images = images_of(tiny_study(1))
    entity = AE("SCANNER")
    entity.add_requested_context(MRImageStorage)
    with serving(settings) as service:
        link = entity.associate("127.0.0.1", settings.port, ae_title="GRADE")
        link.send_c_store(images[0])
        time.sleep(0.8)
        assert service.queue.keys("incoming") == [key_of(images)]
        link.send_c_store(images[1])
        link.abort()  # the sender breaks off
        wait_until(lambda: settled(service, key_of(images)) == "done", what="answered")
        assert service.queue.ticket("done", key_of(images)).images == 2


def test_a_full_disk_refuses_before_it_is_full(tmp_path: Path) -> None:
    settings = ward_settings(tmp_path / "hospital", free_gb=1e9)
    images = images_of(tiny_study(1))
    with serving(settings) as service:
        assert set(send(images, settings.port)) == {0xA700}
        assert service.queue.keys("incoming") == []


def test_an_archive_that_is_away_and_one_that_refuses(tmp_path: Path) -> None:
    archive = Archive()
    settings = ward_settings(tmp_path / "hospital", archive, send_attempts=400)
    images = images_of(tiny_study(1))
    with serving(settings) as service:
        send(images, settings.port)
        wait_until(lambda: service.queue.state_of(key_of(images)) == "done", what="answered")
        wait_until(lambda: service.queue.ticket("done", key_of(images)).tries >= 2, what="tried")
        archive.open()
        wait_until(lambda: settled(service, key_of(images)) == "done", what="sent")
    assert list(archive.times.values()) == [1]
    archive.status = 0xC001
    settings = ward_settings(tmp_path / "other", archive, send_attempts=2)
    with serving(settings) as service:
        send(images, settings.port)
        wait_until(lambda: service.queue.state_of(key_of(images)) == "failed", what="given up")
        assert "0xC001" in service.queue.ticket("failed", key_of(images)).reason
        # Tried again by hand, as the documents say.
        archive.status = 0x0000
        Queue(settings.folder).path("failed", key_of(images)).rename(settings.folder / "ready" / key_of(images))
        wait_until(lambda: settled(service, key_of(images)) == "done", what="sent")
    archive.close()


def test_a_study_that_kills_the_worker_is_given_up_and_the_others_are_answered(tmp_path: Path) -> None:
    settings = ward_settings(tmp_path / "hospital", attempts=2)
    deadly, failing, good = (images_of(tiny_study(number)) for number in (666, 500, 1))
    with serving(settings) as service:
        for images in (deadly, failing, good):
            send(images, settings.port)
        wait_until(lambda: settled(service, key_of(good)) == "done", 60, "answered")
        wait_until(lambda: settled(service, key_of(deadly)) == "failed", 60, "given up")
        wait_until(lambda: settled(service, key_of(failing)) == "failed", 60, "given up")
        assert "signal 9" in service.queue.ticket("failed", key_of(deadly)).reason
        assert "out of memory" in service.queue.ticket("failed", key_of(failing)).reason
        assert service.queue.ticket("failed", key_of(failing)).attempts == 2


def test_it_ends_after_the_study_in_hand_and_resumes(tmp_path: Path, archive: Archive) -> None:
    settings = ward_settings(tmp_path / "hospital", archive)
    queue = Queue(settings.folder)
    studies = [images_of(tiny_study(number)) for number in (1, 2, 3)]
    for number, images in enumerate(studies, start=1):
        folder = queue.path("ready", key_of(images))
        write_study(tiny_study(number), tmp_path / str(number))
        (folder / "images").mkdir(parents=True)
        for place, file in enumerate(sorted((tmp_path / str(number)).rglob("*.dcm"))):
            file.rename(folder / "images" / f"{place}.dcm")
    with serving(settings, quick(1.5)) as service:
        wait_until(lambda: service.queue.keys("running"), what="at work")
    assert queue.keys("running") == []
    assert 1 <= len(queue.keys("done")) < 3
    queue.path("ready", queue.keys("ready")[0]).rename(queue.path("running", "x" * 32))  # as a kill would leave it
    queue.path("running", "x" * 32).rename(queue.path("running", queue_key(queue, studies)))
    with serving(settings) as service:
        for images in studies:
            wait_until(lambda images=images: settled(service, key_of(images)) == "done", what="answered")
    assert sorted(archive.times.values()) == [1, 1, 1]


def queue_key(queue: Queue, studies: list) -> str:
    """The study that is in none of the states."""
    return next(key for key in map(key_of, studies) if queue.state_of(key) is None)


def test_what_no_retry_changes_ends_it(tmp_path: Path) -> None:
    settings = ward_settings(tmp_path / "hospital")
    with pytest.raises(GradeError, match="there is no model here"), serving(settings, broken):
        pass
    with pytest.raises(GradeError, match="no peer is known"), serving(ward_settings(tmp_path / "b", peers={})):
        pass
    with serving(settings):
        with pytest.raises(GradeError, match="another service works on"), serving(settings):
            pass
        other = settings.model_copy(update={"folder": tmp_path / "c"})
        assert other.port == settings.port


def test_a_watched_folder_without_a_network(tmp_path: Path) -> None:
    watch = tmp_path / "watch"
    settings = ward_settings(tmp_path / "hospital")
    with serving(settings, network=False, watch=watch):
        write_study(tiny_study(1), watch / "case one")
        write_study(tiny_study(13), watch / "case 13")
        (watch / "letter.txt").write_text("no images")
        wait_until((watch / "answers" / "case one" / "sr.dcm").is_file, what="answered")
        wait_until((watch / "answers" / "case 13" / "sr.dcm").is_file, what="refused with a report")
        wait_until((watch / "rejected" / "letter.txt").is_file, what="rejected")
        assert (watch / "taken" / "case one").is_dir()
        assert not (watch / "case one").exists()


def test_without_its_watched_folder_the_service_goes_on(tmp_path: Path) -> None:
    settings = ward_settings(tmp_path / "hospital")
    images = images_of(tiny_study(1))
    with serving(settings, watch=tmp_path / "watch") as service:
        shutil.rmtree(tmp_path / "watch")
        send(images, settings.port)
        wait_until(lambda: settled(service, key_of(images)) == "done", what="answered")
        assert any("watch" in sentence for _, sentence in service.health.errors)


def test_an_answer_never_replaces_that_of_another_study(tmp_path: Path) -> None:
    """Two studies dropped under one name; then the last image of each, which answers it again in its own place."""
    watch = tmp_path / "watch"
    anna, berta = images_of(tiny_study(1)), images_of(tiny_study(2))
    other = f"study-{key_of(berta)[:8]}"

    def put(images: list) -> None:
        (tmp_path / "made").mkdir()
        for place, image in enumerate(images):
            image.save_as(tmp_path / "made" / f"{place}.dcm", enforce_file_format=True)
        (tmp_path / "made").rename(watch / "study")

    def answered(name: str, images: list, count: int) -> bool:
        file = watch / "answers" / name / "sr.dcm"
        if not file.is_file():
            return False
        report = pydicom.dcmread(file)
        return (report.StudyInstanceUID, report.InstanceNumber) == (images[0].StudyInstanceUID, count)

    with serving(ward_settings(tmp_path / "hospital"), network=False, watch=watch):
        for name, images in (("study", anna), (other, berta)):
            put(images[:-1])
            wait_until(lambda name=name, images=images: answered(name, images, 7), what="answered")
        for name, images in (("study", anna), (other, berta)):
            put(images[-1:])
            wait_until(lambda name=name, images=images: answered(name, images, 8), what="answered again")
        assert sorted(file.name for file in (watch / "answers").iterdir()) == sorted(["study", other])
        assert answered("study", anna, 8)


def test_killed_at_any_instant_nothing_is_lost(tmp_path: Path) -> None:
    assert killed(tmp_path, kills=1, count=3)  # `python -m tests.campaign service`: 20 and 60


def test_old_studies_are_deleted(tmp_path: Path) -> None:
    settings = ward_settings(tmp_path / "hospital", keep_days=7.0)
    images = images_of(tiny_study(1))
    with serving(settings) as service:
        send(images, settings.port)
        wait_until(lambda: settled(service, key_of(images)) == "done", what="answered")
    queue = Queue(settings.folder)
    ticket = queue.ticket("done", key_of(images))
    queue.write("done", key_of(images), ticket.model_copy(update={"since": time.time() - 8 * 86400}))
    with serving(settings):
        wait_until(lambda: not queue.keys("done"), what="deleted")
    assert events(settings.folder)[-1] == ("deleted", key_of(images))
    assert list((settings.folder / ".trash").iterdir()) == []
