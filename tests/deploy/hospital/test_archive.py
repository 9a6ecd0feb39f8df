"""With a real archive: from storescu over Orthanc to `grade serve`, and the answer back, once and without a loop."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path

import pydicom
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from deploy.hospital.network.nodes import PeerUnavailable
from deploy.hospital.network.query import find_studies_at, listed, pull_study
from deploy.hospital.network.send import echo, send_files
from deploy.hospital.network.web import store_files
from deploy.hospital.results.report import read_values
from tests.deploy.hospital.orthanc import Orthanc, orthanc
from tests.deploy.hospital.programs import needs, run, validation_errors
from tests.deploy.hospital.quick import full, record_of_phantom
from tests.deploy.hospital.tiny import images_of, tiny_study, write_study
from tests.deploy.hospital.ward import free_port, serving, wait_until, ward_settings
from toolkit.config.service import Peer
from toolkit.errors import GradeError

needs_orthanc = needs("/usr/sbin/Orthanc", "/usr/bin/storescu")
needs_dicomweb = needs("/usr/sbin/Orthanc", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected():
    """Those sockets are collected here, where the warning is expected."""
    yield
    gc.collect()


@needs_orthanc
@needs("/usr/bin/dciodvfy", "/usr/bin/dsrdump")
def test_there_and_back_once_without_a_loop(tmp_path: Path) -> None:
    port = free_port()
    study = tiny_study(4)
    uid = str(images_of(study)[0].StudyInstanceUID)
    with orthanc(tmp_path / "orthanc", port) as archive:
        peer = Peer(aet="PACS", host="127.0.0.1", port=archive.port)
        settings = ward_settings(
            tmp_path / "hospital", port=port, peers={"PACS": peer}, destinations=("PACS",), quiet=0.5
        )
        with serving(settings, full):
            files = write_study(study, tmp_path / "study")
            command = ("/usr/bin/storescu", "-aet", "MODALITY", "-aec", "PACS", "127.0.0.1", str(archive.port))
            done = run(*command, *files)
            assert done.returncode == 0, done.stderr
            wait_until(lambda: archive.get("/statistics")["CountInstances"] == 10, what="the answer is in the archive")
            # The archive forwards the study again, now with our answer in it.
            wait_until(lambda: _events(settings.folder).count("repeated"), what="the study came again")
            time.sleep(2.5)  # as long as it took to come again
        assert archive.modalities() == ["MR"] * 4 + ["OT", "SR"]
        assert len(archive.get("/studies")) == 1
        assert archive.get("/statistics")["CountInstances"] == 10
        told = _events(settings.folder)
        assert told.count("answered") == told.count("sent") == told.count("received") == 1
        objects = [
            archive.download(one["Instances"][0], tmp_path / f"{one['MainDicomTags']['Modality']}.dcm")
            for one in archive.series()
            if one["MainDicomTags"]["Modality"] in ("SR", "OT")
        ]
    for file in objects:
        assert validation_errors(file) == []
        assert pydicom.dcmread(file).StudyInstanceUID == uid
    record = record_of_phantom()
    values = read_values(pydicom.dcmread(tmp_path / "SR.dcm"))
    assert values["probability"] == pytest.approx(record.probability, abs=1e-12)
    assert (values["threshold"], values["grade"]) == (record.threshold, record.grade)
    assert '="0.123456789"' in run("/usr/bin/dsrdump", tmp_path / "SR.dcm").stdout


def _events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / "service.jsonl").read_text().splitlines()]


def _by_command(folder: Path, archive: Orthanc, port: int, study: str) -> None:
    """The commands as the README writes them, twice each."""
    web = f"http://127.0.0.1:{archive.http}/dicom-web"
    peer = f'aet = "PACS"\nhost = "127.0.0.1"\nport = {archive.port}\nweb = "{web}"'
    config = folder / "grade.toml"
    config.write_text(f"[hospital]\nport = {port}\n[hospital.peers.PACS]\n{peer}\n")

    def grade(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(config)])

    assert "PACS answers" in grade("pacs", "echo", "PACS").stderr
    found = json.loads(grade("pacs", "find", "PACS", "--patient", "P00005", "--json").stdout)
    assert [row["StudyInstanceUID"] for row in found] == [study]
    assert grade("pacs", "find", "PACS").exit_code == 2
    (folder / "list.csv").write_text("accession\nA00005\nA99999\n")
    for outcome in ("fetched", "there already"):
        done = grade("pull", "PACS", "--worklist", str(folder / "list.csv"), "--out", str(folder / "got"))
        assert done.exit_code == 0, done.output
        assert outcome in (folder / "got" / "pulled.csv").read_text()
    assert len(list((folder / "got").rglob("*.dcm"))) == 8
    assert grade("pull", "PACS", "--study", "1.2.3", "--study", study, "--out", str(folder / "got")).exit_code == 3
    for more in ([], ["--web"]):
        name = "web" if more else "dimse"
        write_study(tiny_study(6 + len(more)), folder / name)
        first, second = (grade("send", str(folder / name), "--to", "PACS", *more).stderr for _ in range(2))
        assert "8 objects sent to PACS" in first
        assert "0 objects sent to PACS; 8 were there" in second
    assert archive.get("/statistics")["CountStudies"] == 3
    for more in ([], ["--web"]):
        found = json.loads(grade("pacs", "find", "PACS", "--date", "20260101-20260131", "--json", *more).stdout)
        images = {row["StudyInstanceUID"]: int(row["NumberOfStudyRelatedInstances"]) for row in found}
        assert images == _held(archive)


def _held(archive: Orthanc) -> dict[str, int]:
    """Study UID -> how many objects the archive itself says that it has."""
    studies = [archive.get(f"/studies/{key}") for key in archive.get("/studies")]
    return {
        one["MainDicomTags"]["StudyInstanceUID"]: archive.get(f"/studies/{one['ID']}/statistics")["CountInstances"]
        for one in studies
    }


@needs_orthanc
@needs_dicomweb
def test_asking_and_fetching(tmp_path: Path) -> None:
    port = free_port()
    study = tiny_study(5)
    images = images_of(study)
    files = write_study(study, tmp_path / "study")
    with orthanc(tmp_path / "orthanc", port, forward=False) as archive:
        address = f"http://127.0.0.1:{archive.http}/dicom-web"
        peers = {
            "PACS": Peer(aet="PACS", host="127.0.0.1", port=archive.port, web=address),
            "AWAY": Peer(aet="AWAY", host="127.0.0.1", port=free_port()),
            "SENDER": Peer(aet="SENDER"),
        }
        settings = ward_settings(tmp_path / "unused", port=port, peers=peers)
        echo(settings, "PACS")
        send_files(files[:4], settings, "PACS")
        store_files(files[4:], address)
        for web in (False, True):
            found = list(listed(find_studies_at(settings, "PACS", {"PatientID": "P00005"}, web)))
            assert [row["StudyInstanceUID"] for row in found] == [images[0].StudyInstanceUID]
            assert found[0]["AccessionNumber"] == "A00005"
            assert find_studies_at(settings, "PACS", {"PatientID": "NOBODY"}, web) == []
            out = tmp_path / f"pulled{web}"
            assert pull_study(settings, "PACS", images[0].StudyInstanceUID, out, web) == 8
            pulled = {str(pydicom.dcmread(file).SOPInstanceUID) for file in out.glob("*.dcm")}
            assert pulled == {str(image.SOPInstanceUID) for image in images}
            with pytest.raises(PeerUnavailable):
                pull_study(settings, "PACS", "1.2.3.4", tmp_path / "none", web)
            assert not (tmp_path / "none").exists()
        _by_command(tmp_path, archive, port, images[0].StudyInstanceUID)
        with pytest.raises(PeerUnavailable, match="does not answer"):
            echo(settings, "AWAY")
        with pytest.raises(GradeError, match="no host and port"):
            echo(settings, "SENDER")
        with pytest.raises(GradeError, match=r"peer NOWHERE is unknown; known: PACS, AWAY, SENDER"):
            echo(settings, "NOWHERE")
