"""Damage at random, read in processes: the same scans, sentences, notes and hashes as read here."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from deploy.predict.reader import Read, Wanted, read_patient, reader
from tests.toolkit.data.faults.build import drafted
from tests.toolkit.data.reading.test_door_property import (
    GRID,
    SOUND,
    STREAMS,
    Sound,
    draw_damaged_headers,
    draw_damaged_streams,
)
from toolkit.data.patients import Patient, find_patients
from toolkit.data.scan import read_scan

CASES = 100
DAMAGES = ((draw_damaged_headers, tuple(SOUND)), (draw_damaged_streams, STREAMS))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Patient, ...]:
    sound = {}
    for name, changes in SOUND.items():
        root, draft = tmp_path_factory.mktemp(name), drafted(changes)
        draft.write(root)
        sound[name] = Sound(draft.images, read_scan(find_patients([root])[0], GRID))
    out = tmp_path_factory.mktemp("damaged")

    @settings(max_examples=CASES, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def write(data: st.DataObject) -> None:
        draw_damage, names = data.draw(st.sampled_from(DAMAGES))
        patient = sound[data.draw(st.sampled_from(names))]
        files = patient.files | draw_damage(data.draw, patient)
        folder = out / f"{len(list(out.iterdir())):03}"
        folder.mkdir()
        for modality, content in files.items():
            (folder / f"{folder.name}_{modality}.nii.gz").write_bytes(content)

    write()
    return find_patients([out])


@pytest.fixture(scope="module")
def here(damaged: tuple[Patient, ...]) -> list[Read]:
    return [read_patient(patient, GRID, None) for patient in damaged]


@pytest.mark.parametrize("boxes", [False, True])
def test_processes_read_damaged_patients_as_they_are_read_here(
    damaged: tuple[Patient, ...], here: list[Read], boxes: bool
) -> None:
    scans = 0
    with threadpool_limits(1, user_api="blas"), reader(damaged, Wanted(GRID, boxes=boxes), 2, "processes") as reads:
        for wanted in here:
            found = reads.take()
            assert found is not None
            assert (found.patient, found.reason, found.notes, found.inputs) == (
                wanted.patient,
                wanted.reason,
                wanted.notes,
                wanted.inputs,
            )
            assert (found.scan is None) == (wanted.scan is None)
            if found.scan and wanted.scan:
                scans += 1
                assert (found.scan.statistics, found.scan.content) == (wanted.scan.statistics, wanted.scan.content)
                assert found.scan.affine.tobytes() == wanted.scan.affine.tobytes()
                if found.box is None:  # with a box the card makes the voxels
                    assert found.scan.data.tobytes() == wanted.scan.data.tobytes()
        assert reads.take() is None
    assert len(here) == CASES
    assert 0 < scans < CASES  # some are graded, some refused: about one in six
