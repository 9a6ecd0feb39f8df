"""`grade serve` behind the gate with a real model: a study in, its answer out, a clean end on SIGTERM.

Its processes are forked from here; tests/deploy/hospital/test_service.py starts them, without a model.
"""

import json
import signal
import urllib.request

import pydicom
import pytest

from deploy.hospital.results.report import read_values
from deploy.hospital.space.pose import EDGES, STEPS
from deploy.hospital.space.register import LEVELS
from tests.deploy.hospital.scene import rigid, study
from tests.deploy.hospital.ward import Archive, free_port, send, wait_until
from tests.deploy.hospital.writer import write_study
from tests.forked import Forked

SETTINGS = """
[hospital]
port = {port}
page_port = {page}
quiet = 0.5
free_gb = 0.01
destinations = ["PACS"]
peers.SCANNER.aet = "SCANNER"
peers.PACS = {{ aet = "PACS", host = "127.0.0.1", port = {archive} }}
"""


@pytest.fixture
def archive():
    with Archive.opened() as archive:
        yield archive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see tests/deploy/hospital/test_service
@pytest.mark.usefixtures("forked_gate", "forked_parts")
def test_a_study_sent_to_the_service_comes_back_graded(site, archive, monkeypatch):
    # Roughly aligned will do here, as in test_bring_in.py.
    monkeypatch.setattr("deploy.hospital.space.register.LEVELS", LEVELS[2:])
    monkeypatch.setattr("deploy.hospital.space.pose.EDGES", EDGES[:1])
    monkeypatch.setattr("deploy.hospital.space.pose.STEPS", STEPS[:1])
    port, page = free_port(), free_port()
    (site / "grade.toml").write_text(SETTINGS.format(port=port, page=page, archive=archive.port))
    write_study(site / "study", study({"t2": rigid((4.0, 0.0, -5.0), (3.0, 2.0, -4.0))}, edge=9))
    images = [pydicom.dcmread(file) for file in sorted((site / "study").rglob("*.dcm"))]
    service = Forked(("--no-phi", "serve"), cwd=site)
    try:
        wait_until(lambda: _page(page, "/health")[0] == 200 or service.poll() is not None, 180, "healthy")
        assert service.poll() is None
        assert send(images, port) == [0x0000] * len(images)
        wait_until(archive.reports, 240, "answered")
        wait_until(lambda: '"sent"' in (site / "hospital" / "service.jsonl").read_text(), what="noted")
        shown = _page(page, "/")[1]
    finally:
        service.send_signal(signal.SIGTERM)
        log = "".join(service.communicate(60))
    assert service.returncode == 0
    (report,) = archive.reports().values()
    values = read_values(report)
    assert sorted(one.Modality for one in archive.objects.values()) == ["OT", "SR"]
    assert report.StudyInstanceUID == images[0].StudyInstanceUID
    assert values["grade"] in ("LGG", "HGG")
    told = [json.loads(line) for line in (site / "hospital" / "service.jsonl").read_text().splitlines()]
    assert [line["event"] for line in told] == ["received", "answered", "sent"]
    assert told[1]["probability"] == pytest.approx(values["probability"], abs=1e-9)
    assert told[1]["study"][:12] in shown
    assert "stopping after the study in hand" in log
    assert f"study {told[1]['study']} {values['grade']} in" in log  # the journal and the page speak of the same study
    for word in ("GLIOMA", "P1", str(report.StudyInstanceUID)):
        assert word not in log + json.dumps(told)
    assert "P1<" not in shown


def _page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
