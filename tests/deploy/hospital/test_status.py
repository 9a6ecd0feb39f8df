"""The page: what it shows and to whom, health, and dropping a zip behind a token."""

from __future__ import annotations

import io
import shutil
import warnings
import zipfile
from pathlib import Path

import pytest

from deploy.hospital.queue import Queue, Ticket, study_key
from deploy.hospital.service.serve import Job, Service
from deploy.hospital.service.status import Status, read_token
from tests.deploy.hospital.quick import MODEL, quick
from tests.deploy.hospital.tiny import tiny_study, write_study
from tests.deploy.hospital.ward import serving, wait_until, ward_settings
from toolkit.errors import GradeError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would like a successor of httpx
    from starlette.testclient import TestClient

HERE = "http://127.0.0.1"
TOKEN = "correct-horse-battery"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    service = Service(Job(ward_settings(tmp_path / "hospital"), quick(), MODEL))
    put(
        service.queue,
        1,
        "done",
        Ticket(label="P1<b>", grade="HGG", probability=0.91, verdict="single grade", since=1.0),
    )
    put(service.queue, 2, "refused", Ticket(label="P2", reason="there is no T1 after contrast", unsent=("PACS",)))
    put(service.queue, 3, "failed", Ticket(label="P3", reason="PACS does not answer"))
    put(service.queue, 4, "ready", Ticket(label="P4", sender="SCANNER", images=104))
    return service


def put(queue: Queue, number: int, state: str, ticket: Ticket) -> str:
    key = study_key(f"1.2.{number}")
    queue.path(state, key).mkdir()
    queue.write(state, key, ticket.model_copy(update={"state": state}))
    return key


def client(service: Service, labels: bool = True, **more: object) -> TestClient:
    return TestClient(Status(service, labels, **more).app(), base_url=HERE)


def test_it_shows_states_reasons_and_ids(service: Service) -> None:
    page = client(service).get("/")
    assert page.status_code == 200
    for text in (
        "P1&lt;b&gt;",
        "0.910",
        "there is no T1 after contrast",
        "waits for PACS",
        "PACS does not answer",
        "104",
    ):
        assert text in page.text
    assert "script" not in page.text
    assert "http-equiv" not in page.text
    assert 'http-equiv="refresh"' in client(service).get("/?refresh").text
    facts = client(service).get("/status.json").json()
    assert facts["counts"] == {"incoming": 0, "ready": 1, "running": 0, "done": 1, "refused": 1, "failed": 1}
    assert facts["unsent"] == 1


def test_a_model_of_phantoms_is_named(tmp_path: Path) -> None:
    said = "The model was trained on phantoms: never for patients."
    for origin in (said, ""):
        service = Service(Job(ward_settings(tmp_path / "hospital"), quick(), MODEL, origin=origin))
        assert (said in client(service).get("/").text) == bool(origin)
        assert client(service).get("/status.json").json()["origin"] == origin


def test_without_labels_it_shows_hashes(service: Service) -> None:
    for path in ("/", "/status.json"):
        text = client(service, labels=False).get(path).text
        assert "P1" not in text
        assert "P4" not in text
        assert study_key("1.2.1")[:12] in text


def test_it_changes_nothing_and_answers_this_machine_alone(service: Service) -> None:
    page = client(service)
    for path in ("/", "/status.json", "/health"):
        assert page.post(path).status_code == 405
        assert page.delete(path).status_code == 405
    assert page.post("/studies").status_code == 404
    assert TestClient(Status(service, True).app(), base_url="http://evil.example").get("/").status_code == 400
    for path in ("/patients/..%2f..%2fservice.jsonl", "/patients/none", f"/patients/{study_key('1.2.2')}"):
        assert page.get(path).status_code == 404


def test_a_patients_page_is_linked(service: Service) -> None:
    key = study_key("1.2.1")
    results = service.queue.path("done", key) / "results"
    results.mkdir()
    (results / "page.html").write_text("<p>the patient's page</p>")
    page = client(service)
    assert f'href="patients/{key}"' in page.get("/").text
    assert page.get(f"/patients/{key}").text == "<p>the patient's page</p>"


def test_health_says_what_is_wrong(service: Service) -> None:
    assert client(service).get("/health").status_code == 503  # neither model nor reception yet
    service.health.ready = service.health.listening = True
    assert client(service).get("/health").json()["ok"] is True
    service.health.beat -= 60
    answer = client(service).get("/health")
    assert answer.status_code == 503
    assert answer.json()["beats"] is False


@pytest.mark.parametrize("missing", ["done", "."])
def test_health_says_that_folders_are_missing(service: Service, missing: str) -> None:
    service.health.ready = service.health.listening = True
    page = client(service, uploads=service.queue.folder / "uploads", token=TOKEN)
    assert "are missing" not in page.get("/").text
    shutil.rmtree(service.queue.folder / missing)
    answer = page.get("/health")
    assert answer.status_code == 503
    assert (answer.json()["ok"], answer.json()["folders"]) == (False, False)
    assert "Needs attention" in page.get("/").text
    assert "folders of the service are missing" in page.get("/").text
    assert page.get("/status.json").json()["counts"]["done"] == 0
    assert page.get(f"/patients/{study_key('1.2.1')}").status_code == 404
    if missing == ".":
        assert page.post("/studies", data={"token": TOKEN}).status_code == 507


def test_a_zip_is_dropped_behind_a_token(tmp_path: Path) -> None:
    uploads = tmp_path / "hospital" / "uploads"
    uploads.mkdir(parents=True)
    write_study(tiny_study(1), tmp_path / "study")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in (tmp_path / "study").rglob("*.dcm"):
            archive.write(file, file.relative_to(tmp_path))
    with serving(ward_settings(tmp_path / "hospital"), watch=uploads) as service:
        page = client(service, uploads=uploads, token=TOKEN)
        study = {"study": ("PHANTOM^1.zip", packed.getvalue())}
        assert page.post("/studies", files=study).status_code == 403
        assert page.post("/studies", files=study, data={"token": "wrong"}).status_code == 403
        assert list(uploads.glob("*.zip")) == []
        assert page.post("/studies", data={"token": TOKEN}).status_code in (400, 403)
        assert page.post("/studies", files=study, data={"token": TOKEN}).status_code == 202
        wait_until(lambda: service.queue.keys("done"), what="answered")
        ticket = service.queue.ticket("done", service.queue.keys("done")[0])
        assert "PHANTOM" not in ticket.drop


@pytest.mark.parametrize(("charset", "given"), [("utf-7", b"+2AA-"), ("unicode_escape", b"\\ud800"), ("hex", b"\xff")])
def test_a_token_in_no_characters_is_wrong(service: Service, tmp_path: Path, charset: str, given: bytes) -> None:
    body = b'--X\r\nContent-Disposition: form-data; name="token"\r\n\r\n' + given + b"\r\n--X--\r\n"
    kind = {"Content-Type": f"multipart/form-data; boundary=X; charset={charset}"}
    answer = client(service, uploads=tmp_path, token=TOKEN).post("/studies", content=body, headers=kind)
    assert (answer.status_code, answer.json()) == (403, {"error": "wrong token"})


def test_a_token_is_kept_from_others(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    with pytest.raises(GradeError, match="can be read by others"):
        read_token(file)
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.write_text("short")
    with pytest.raises(GradeError, match="at least 16"):
        read_token(file)
