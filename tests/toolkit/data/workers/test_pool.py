"""Work in processes: the same results in the same order, whatever dies."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.toolkit.data.workers.tasks import Stillborn, Task
from toolkit.data.workers.choose import LEAST_ITEMS, MOST_THREADS, in_processes, working
from toolkit.data.workers.pool import SPARE, Processes
from toolkit.data.workers.slots import SLOT, Place, Slots
from toolkit.errors import CohortError, GradeError

ROOT = Path(__file__).parents[4]


def pids(folder: Path) -> set[int]:
    return {int(file.name.rpartition("-")[2]) for file in folder.iterdir()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(found: set[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in found):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_results_come_in_order_through_few_slots(tmp_path: Path) -> None:
    with Processes(Task(folder=tmp_path, seconds=0.02), range(30), 2) as results:
        for item in range(30):
            found = results.take()
            assert found is not None
            number, array = found
            assert number == item
            assert results.slots.address_of(array) is not None  # nothing was copied
            np.testing.assert_array_equal(array, np.float32(item))
        assert results.take() is None
        del found, array
        assert len(results.slots._free) == 4 + SPARE
    assert len(pids(tmp_path)) == 2
    assert gone(pids(tmp_path), 0.5)


def test_threads_and_processes_give_the_same() -> None:
    found = []
    for readers in ("threads", "processes"):
        with working(Task(), list(range(7)), 2, readers) as results:  # type: ignore[arg-type]
            found.append([results.take(3) for _ in range(8)])
    assert found[0][-1] is found[1][-1] is None
    for (one, x), (other, y) in zip(found[0][:-1], found[1][:-1], strict=True):  # type: ignore[misc]
        assert one == other
        np.testing.assert_array_equal(x, y)


def test_results_that_are_kept_stay_good_when_slots_run_out() -> None:
    with Processes(Task(), range(20), 2) as results:
        kept = [results.take() for _ in range(20)]
    for number, found in enumerate(kept):
        assert found is not None
        np.testing.assert_array_equal(found[1], np.float32(number))


def test_a_result_that_is_larger_than_a_slot_comes_through_the_pipe() -> None:
    with Processes(Task(size=SLOT // 4 + 1), [5], 1) as results:
        found = results.take()
        assert found is not None
        assert results.slots.address_of(found[1]) is None
        assert (found[1].min(), found[1].max(), len(found[1])) == (5, 5, SLOT // 4 + 1)


def test_the_memory_goes_with_the_last_array() -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("grade-readers")

    before, opened = mapped(), len(list(Path("/proc/self/fd").iterdir()))
    with Processes(Task(), range(9), 2) as results:
        kept = [results.take() for _ in range(2)]
        assert mapped() > before
    assert mapped() > before
    np.testing.assert_array_equal(kept[1][1], np.float32(1))  # type: ignore[index]
    del kept
    assert mapped() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_finished_results_are_not_taken() -> None:
    with Processes(Task(), range(3), 3) as results:
        while len(results.finished()) < 3:
            time.sleep(0.01)
        assert [number for number, _ in results.finished()] == [0, 1, 2]
        assert [found[0] for found in iter(results.take, None)] == [0, 1, 2]  # type: ignore[index]


def test_what_the_work_raises_the_taker_gets() -> None:
    with Processes(Task(raises=(1,)), range(3), 2) as results:
        assert results.take()[0] == 0  # type: ignore[index]
        with pytest.raises(CohortError, match="item 1 is bad"):
            results.take()
        assert results.take()[0] == 2  # type: ignore[index]


def test_a_death_costs_one_more_try_and_the_second_one_the_item(tmp_path: Path) -> None:
    with Processes(Task(folder=tmp_path, killed=((2, 1), (4, 9))), range(8), 3) as results:
        found = [results.take() for _ in range(8)]
        assert results.take() is None
    assert [one[0] for one in found] == list(range(8))  # type: ignore[index]
    for number, content in (one for one in found if one is not None):
        if number == 4:
            assert content == "the process that read it ended twice (signal 9: Killed, then signal 9: Killed)"
        else:
            np.testing.assert_array_equal(content, np.float32(number))
    tries = [len(list(tmp_path.glob(f"{number}-*"))) for number in range(8)]
    assert tries[2] == tries[4] == 2
    assert gone(pids(tmp_path), 0.5)


def test_processes_that_never_start_are_an_error() -> None:
    with Processes(Stillborn(), range(8), 2) as results, pytest.raises(GradeError, match=r"as they start \(exit code"):
        results.take()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_parent_that_dies(tmp_path: Path, blow: signal.Signals) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from toolkit.data.workers.pool import Processes\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background\n"
        "from tests.toolkit.data.workers.tasks import Task\n"
        "with Processes(Task(folder=Path(sys.argv[1]), seconds=0.2), range(1000), 3) as results:\n"
        "    while results.take(): pass\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
    while len(pids(tmp_path)) < 3:
        assert parent.poll() is None
        time.sleep(0.02)
    children = pids(tmp_path)
    assert all(alive(pid) for pid in children)
    # What is shared has no name in /dev/shm, so nothing can remain there.
    assert not any("/dev/shm/" in Path(f"/proc/{pid}/maps").read_text() for pid in (parent.pid, *children))
    os.kill(parent.pid, blow)
    parent.communicate(timeout=20)
    assert parent.returncode != 0
    assert gone(children)


def test_arrays_in_a_slot_are_not_copied_and_free_it_when_they_go() -> None:
    slots = Slots(1, lambda: None)
    place = Place(slots.file)
    number = slots.take()
    assert number == 0
    assert slots.take() is None
    place.begin(number)
    first, second = place.array((3, 4), np.int16), place.array((2,), np.float64)
    first[:], second[:] = 7, 0.5
    outside = np.arange(5)
    packed = place.pack({"first": first, "second": second, "outside": outside, "part": first[1]})
    assert len(packed.spans) == 3
    assert len(packed.content) < 1000
    found = slots.unpack(packed, number)
    np.testing.assert_array_equal(found["first"], np.full((3, 4), 7, np.int16))
    np.testing.assert_array_equal(found["outside"], outside)
    assert slots.take() is None
    part = found.pop("part")
    del found
    assert slots.take() is None
    np.testing.assert_array_equal(part, np.full(4, 7, np.int16))
    del part
    assert slots.take() == 0
    slots.close()


def test_an_object_without_arrays_holds_no_slot() -> None:
    slots = Slots(1, lambda: None)
    place = Place(slots.file)
    slots.take()
    place.begin(0)
    assert slots.unpack(place.pack("refused"), 0) == "refused"
    assert slots.take() == 0
    slots.close()


def test_processes_for_many_workers_and_patients_alone() -> None:
    assert not in_processes("auto", MOST_THREADS, 1000)
    assert not in_processes("auto", 16, LEAST_ITEMS - 1)
    assert in_processes("auto", MOST_THREADS + 1, LEAST_ITEMS)
    assert not in_processes("threads", 16, 1000)
    assert in_processes("processes", 1, 1)


def test_readers_load_nothing_heavy() -> None:
    code = (
        "import sys, deploy.predict.reader, toolkit.data.cohort.check\n"
        "print([m for m in ('torch', 'onnxruntime', 'onnx', 'sklearn', 'matplotlib', 'pandas', 'monai', 'typer',"
        " 'pydicom.dataset') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_work_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Task(3))) == Task(3)
