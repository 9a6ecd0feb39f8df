"""The service under stress: senders that misbehave, kill -9, a full disk, an archive that is away, and strangers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE

from deploy.hospital.queue import Queue, study_key
from tests.deploy.hospital.tiny import images_of, tiny_study, write_study
from tests.deploy.hospital.ward import Archive, send, wait_until, ward_settings
from toolkit.config.service import ServiceSettings

ROOT = Path(__file__).parents[2]
IMAGES = 8  # of a study
MOUNT = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs"]


class Process:
    """A service as a process that can be killed and started again."""

    def __init__(self, settings: ServiceSettings, seconds: float = 0.02) -> None:
        self._file = settings.folder.with_suffix(".json")
        self._file.write_text(settings.model_dump_json())
        self._log = settings.folder.with_suffix(".log")
        self._seconds, self.port = seconds, settings.port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.deploy.hospital.serve_quick", str(self._file), str(self._seconds)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def up(self) -> None:
        wait_until(lambda: self.reception() is not None, 120, f"the port is open; see {self._log}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(120)

    def reception(self) -> psutil.Process | None:
        """The process that has the port."""
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children():
                if any(link.laddr.port == self.port and link.status == "LISTEN" for link in child.net_connections()):
                    return child
        return None


def insist(images: list[Dataset], port: int, pause: float = 0.0) -> int:
    """Send a study until the service has taken all of it, as an archive does; how often it took."""
    until = time.monotonic() + 900
    tries = 0
    while time.monotonic() < until:
        tries += 1
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            if send(images, port, pause=pause) == [0x0000] * len(images):
                return tries
        time.sleep(0.25)
    raise AssertionError("a study was never taken")


def break_off(images: list[Dataset], port: int) -> None:
    """Half a study, then the line is cut."""
    entity = AE("SCANNER")
    entity.add_requested_context(MRImageStorage)
    link = entity.associate("127.0.0.1", port, ae_title="GRADE")
    if link.is_established:
        with contextlib.suppress(RuntimeError):  # the service may be killed by then
            for image in images[: len(images) // 2]:
                link.send_c_store(image)
        link.abort()


def three_senders(studies: list[list[Dataset]], port: int) -> None:
    """A slow one, one that breaks off and begins again, and one that sends each study twice."""

    def slow(mine: list[list[Dataset]]) -> None:
        for images in mine:
            insist(images, port, pause=0.02)

    def breaking(mine: list[list[Dataset]]) -> None:
        for images in mine:
            break_off(images, port)
            insist(images, port)

    def repeating(mine: list[list[Dataset]]) -> None:
        for images in mine:
            insist(images, port)
            insist(images, port)

    senders = [
        threading.Thread(target=sender, args=(studies[place::3],))
        for place, sender in enumerate((slow, breaking, repeating))
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def events(folder: Path) -> Counter[str]:
    lines = (folder / "service.jsonl").read_text().splitlines()
    return Counter(json.loads(line)["event"] for line in lines)


def settled(queue: Queue, studies: list[list[Dataset]]) -> bool:
    """Whether each study rests with its answer sent."""
    if any(queue.keys(state) for state in ("incoming", "ready", "running")):
        return False
    for images in studies:
        key = study_key(str(images[0].StudyInstanceUID))
        state = queue.state_of(key)
        if state is None or (state != "failed" and queue.ticket(state, key).unsent):
            return False
    return True


def check(name: str, right: bool, counts: object) -> bool:
    print(f"{'ok   ' if right else 'WRONG'} {name}: {counts}", flush=True)
    return right


def once_each(folder: Path) -> bool:
    """60 studies by three senders at once."""
    studies = [images_of(tiny_study(number)) for number in range(1, 61)]
    with Archive.opened() as archive:
        settings = ward_settings(folder / "once", archive, quiet=15.0)
        service = Process(settings)
        service.start()
        service.up()
        three_senders(studies, settings.port)
        wait_until(lambda: settled(Queue(settings.folder), studies), 180, "all answered")
        service.stop()
        told = events(settings.folder)
        whole = sum(report.InstanceNumber == IMAGES for report in archive.reports().values())
        counts = {"studies": 60, "answered": told["answered"], "sent": told["sent"], "objects": len(archive.objects)}
        counts |= {"whole": whole, "sent twice": sum(times > 1 for times in archive.times.values())}
        right = told["answered"] == told["sent"] == len(archive.objects) == whole == 60 and not counts["sent twice"]
        return check("three senders (slow, breaking off, repeating)", right, counts)


def killed(folder: Path, kills: int = 20, count: int = 60) -> bool:
    """The same while the service is killed at random instants."""
    studies = [images_of(tiny_study(number)) for number in range(101, 101 + count)]
    chance = random.Random(7)
    with Archive.opened() as archive:
        settings = ward_settings(folder / "killed", archive, quiet=0.5, attempts=25, send_attempts=400)
        service = Process(settings, 0.1)
        service.start()
        sending = threading.Thread(target=three_senders, args=(studies, settings.port))
        sending.start()
        at: Counter[str] = Counter()
        for _ in range(kills):
            service.up()
            time.sleep(chance.uniform(0.0, 2.5))
            queue = Queue(settings.folder)
            at.update(state for state in ("incoming", "ready", "running") if queue.keys(state))
            service.kill()
            service.start()
        sending.join()
        wait_until(lambda: settled(Queue(settings.folder), studies), 240, "all answered")
        service.stop()
        told = events(settings.folder)
        whole = sum(report.InstanceNumber == IMAGES for report in archive.reports().values())
        queue = Queue(settings.folder)
        counts = {"kills": kills, "states then": dict(at), "studies": count, "with a whole answer": whole}
        counts |= {"objects": len(archive.objects), "failed": len(queue.keys("failed")), "events": dict(told)}
        counts["stored more than once under the same UID"] = sum(times > 1 for times in archive.times.values())
        return check("kill -9", whole == len(archive.objects) == count and not queue.keys("failed"), counts)


def full_disk(folder: Path) -> bool:
    """A disk of 12 MB: refused with 0xA700 while 3 MB are free, taken again when there is room."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run([*MOUNT, str(disk)], check=False).returncode == 0
    if not mounted:
        return check("full disk", True, "not tried: this machine does not let us mount a small disk")
    try:
        settings = ward_settings(disk / "hospital", free_gb=0.003, keep_days=1)
        service = Process(settings.model_copy(update={"folder": disk / "hospital"}))
        service.start()
        service.up()
        statuses: Counter[int | None] = Counter()
        for number in range(200, 230):
            statuses.update(send(images_of(tiny_study(number, side=256)), settings.port))
        free = shutil.disk_usage(disk).free
        for state in ("done", "ready"):
            queue = Queue(settings.folder)
            for key in queue.keys(state):
                queue.discard(state, key)
        again = Counter(send(images_of(tiny_study(240, side=256)), settings.port))
        service.stop()
        counts = {"statuses": {f"0x{code or 0:04X}": count for code, count in statuses.items()}, "free then": free}
        right = set(statuses) == {0x0000, 0xA700} and free > 2_000_000 and set(again) == {0x0000}
        return check("full disk", right, counts | {"after room was made": dict(again)})
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def away(folder: Path, seconds: float = 60.0) -> bool:
    """The archive is away for a minute."""
    archive = Archive()
    studies = [images_of(tiny_study(number)) for number in range(301, 311)]
    settings = ward_settings(folder / "away", archive, send_pause=2.0)
    service = Process(settings)
    service.start()
    service.up()
    for images in studies:
        insist(images, settings.port)
    time.sleep(seconds)
    before = len(archive.objects)
    archive.open()
    wait_until(lambda: settled(Queue(settings.folder), studies), 180, "all sent")
    service.stop()
    archive.close()
    once = sum(times == 1 for times in archive.times.values())
    return check("archive away", before == 0 and once == 10, {"seconds": seconds, "then sent once each": once})


def strangers(folder: Path, associations: int = 10_000, seconds: float = 240.0) -> bool:
    """Unknown titles, garbage, then associations that are opened and dropped; memory stays flat."""
    settings = ward_settings(folder / "strangers")
    service = Process(settings)
    service.start()
    service.up()
    images = images_of(tiny_study(1))
    rejected = sum(send(images, settings.port, aet=title) == [] for title in ("STRANGER", "scanner", "SCANNER2"))
    chance = random.Random(3)
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", settings.port), timeout=5) as link, contextlib.suppress(OSError):
            link.sendall(chance.randbytes(chance.randrange(1, 3000)))
    request = _request(settings.port)
    reception = service.reception()
    assert reception is not None
    memory, done = [], 0
    until = time.monotonic() + seconds
    while done < associations and time.monotonic() < until:
        if done % (associations // 10) == 0:
            memory.append(round(reception.memory_info().rss / 2**20, 1))
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", settings.port), timeout=10) as link:
            link.sendall(request)
            link.recv(16)
        done += 1
    time.sleep(3)
    memory.append(round(reception.memory_info().rss / 2**20, 1))
    threads = reception.num_threads()
    taken = send(images, settings.port) == [0x0000] * IMAGES
    service.stop()
    counts = {"strangers rejected": f"{rejected} of 3", "garbage": 200, "associations": done, "MiB": memory}
    right = rejected == 3 and taken and done == associations and memory[-1] - memory[1] < 20
    return check("strangers, garbage, dropped associations", right, counts | {"threads at the end": threads})


def _request(port: int) -> bytes:
    """The bytes of an association request from a known title, caught on the way."""
    caught: list[bytes] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def catch() -> None:
            link, _ = server.accept()
            with link:
                caught.append(link.recv(65536))

        thread = threading.Thread(target=catch)
        thread.start()
        entity = AE("SCANNER")
        entity.add_requested_context(MRImageStorage)
        entity.acse_timeout = 5
        entity.associate("127.0.0.1", server.getsockname()[1], ae_title="GRADE")
        thread.join()
    return caught[0]


def rate(folder: Path, instances: int = 1000) -> bool:
    """Reception alone: instances of 256 x 256 by Debian's storescu."""
    settings = ward_settings(folder / "rate", quiet=600.0)
    study = {"t1": [image for number in range(1) for image in tiny_study(900, instances, 256)["t1"]]}
    write_study(study, folder / "many")
    service = Process(settings)
    service.start()
    service.up()
    command = ["/usr/bin/storescu", "-aet", "SCANNER", "-aec", "GRADE", "+sd", "127.0.0.1", str(settings.port)]
    reception = service.reception()
    assert reception is not None
    start = time.monotonic()
    done = subprocess.run([*command, str(folder / "many" / "t1")], check=False, capture_output=True)
    taken = time.monotonic() - start
    busy = reception.cpu_times()
    came = sum(1 for _ in settings.folder.glob("incoming/*/images/*.dcm"))
    service.stop()
    load = round(os.getloadavg()[0], 1)
    counts = {"instances": came, "seconds": round(taken, 1), "a second": round(came / taken), "load": load}
    counts["seconds of processor that reception used since its start"] = round(busy.user + busy.system, 1)
    return check("reception", done.returncode == 0 and came == instances, counts)


PARTS: dict[str, Callable[[Path], bool]] = {
    "once": once_each,
    "killed": killed,
    "disk": full_disk,
    "away": away,
    "strangers": strangers,
    "rate": rate,
}


def main(names: Sequence[str] = ()) -> int:
    """All parts, or those named: `python -m tests.campaign.service once rate`."""
    with tempfile.TemporaryDirectory(prefix="grade-campaign-") as place:
        results: list[Any] = [PARTS[name](Path(place)) for name in (names or PARTS)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
