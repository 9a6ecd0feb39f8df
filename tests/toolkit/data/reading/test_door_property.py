"""Damage at random: the door gives the undamaged patient's scan, or refuses.

Left out is what nothing could tell from another patient: other voxels under a right checksum, and another type of
number of the same width. Fields that place the voxels are damaged in one file alone: the other three contradict it,
while the same in all four would be the truth.
"""

import shutil
import tracemalloc
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from nibabel.nifti2 import Nifti2Header

from tests.toolkit.data.faults.build import Change, Image, compressed, drafted, on
from tests.toolkit.data.faults.streams import blocks, level, members
from toolkit.config import Grid
from toolkit.data.patients import MODALITIES, find_patients
from toolkit.data.scan import Scan, read_scan
from toolkit.errors import PatientRefused

GRID = Grid(spacing=1.5, shape=(16, 16, 16))
MEMORY = 2_000_000_000  # bytes
SOUND: dict[str, tuple[Change, ...]] = {
    "both_forms": (),
    "sform": (on("all", qform_code=0),),
    "qform": (on("all", sform_code=0),),
    "big_endian": (on("all", order=">"),),
    "nifti2": (on("all", kind=Nifti2Header),),
    "nifti2_qform": (on("all", kind=Nifti2Header, sform_code=0, order=">"),),
    "float": (on("all", voxels=lambda v: v.astype("f4")),),
    "double": (on("all", voxels=lambda v: v / 7, sform_code=0),),
    "negative_slope": (on("all", voxels=lambda v: -v, fields={"scl_slope": -1}),),
    "stored_blocks": (on("all", pack=level(0)),),
    "two_members": (on("all", pack=members(300)),),
    "many_members": (on("all", pack=blocks),),
}
STREAMS = ("both_forms", "float", "stored_blocks", "two_members", "many_members")
PLACE = {"dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "vox_offset", "srow_x", "srow_y", "srow_z"}
PLACE |= {"quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"}
READ = PLACE | {"sizeof_hdr", "magic", "datatype", "bitpix", "scl_slope", "scl_inter"}  # what the door looks at
NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 16, 24, 255, 348, 352, 1e-45, 0.5, 1e6, 3e38, 1e300, float("nan"), float("inf")]


@dataclass(frozen=True)
class Sound:
    """An undamaged patient and its scan."""

    images: dict[str, Image]
    scan: Scan

    @cached_property
    def files(self) -> dict[str, bytes]:
        return {modality: image.pack(image.content()) for modality, image in self.images.items()}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    patients = {}
    for name, changes in SOUND.items():
        root = tmp_path_factory.mktemp(name)
        draft = drafted(changes)
        draft.write(root)
        patients[name] = Sound(draft.images, read_scan(find_patients([root])[0], GRID))
    return lambda name: patients[
        name
    ]  # hypothesis writes out what a failing test was given; the dict would be too long


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def check(root: Path, sound: Sound, damaged: dict[str, bytes]) -> None:
    """The scan of the damaged patient is the sound one's, or a sentence says why there is none."""
    shutil.rmtree(root)
    folder = root / "patient"
    folder.mkdir(parents=True)
    for modality, content in (sound.files | damaged).items():
        (folder / f"patient_{modality}.nii.gz").write_bytes(content)
    tracemalloc.start()
    try:
        scan = read_scan(find_patients([root])[0], GRID)
    except PatientRefused as refusal:
        reason = str(refusal)
        assert reason.isprintable()
        assert any(modality in reason for modality in MODALITIES)
        event("refused")
    else:
        event("graded")
        np.testing.assert_allclose(scan.data, sound.scan.data, atol=1e-5)
        assert np.linalg.norm(scan.affine - sound.scan.affine) < 0.1
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY


def overwrite(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def draw_number(draw: st.DrawFn, before: bytes, dtype: np.dtype) -> bytes:
    """A number in a field's own type: one that hurts, or the old one negated, or moved a little."""
    old = np.frombuffer(before, dtype)[0]
    with np.errstate(all="ignore"):
        values = [*np.array(NUMBERS), -float(old), 1.003 * float(old), float(old) + 0.06, float(old) + 1]
        return np.array(draw(st.sampled_from(values))).astype(dtype).tobytes()


def draw_header_damage(draw: st.DrawFn, image: Image, places_too: bool) -> bytes:
    """The file with one to four fields damaged, compressed rightly."""
    known_type = image.voxels.dtype == np.int16  # read as uint16, positive voxels stay what they are
    fields = image.kind.template_dtype.fields
    names = [name for name in fields if (places_too or name not in PLACE) and (known_type or name != "datatype")]
    read = [name for name in names if name in READ]
    content = image.content()
    for name in draw(st.lists(st.sampled_from(read) | st.sampled_from(names), min_size=1, max_size=4)):
        dtype, start = fields[name][:2]
        item = dtype.base.newbyteorder(image.order)
        start += item.itemsize * draw(st.integers(0, dtype.itemsize // item.itemsize - 1))
        before = content[start : start + item.itemsize]
        if item.kind in "iuf" and draw(st.booleans()):
            new = draw_number(draw, before, item)
        else:
            place = draw(st.integers(0, item.itemsize - 1))
            new = overwrite(before, place, draw(st.binary(min_size=1, max_size=1)))
        content = overwrite(content, start, new)
    return compressed(content)


def draw_stream_damage(draw: st.DrawFn, stream: bytes) -> bytes:
    """A compressed file, damaged one to three times."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(
            st.integers(0, len(stream)) | st.integers(0, 40) | st.integers(max(0, len(stream) - 20), len(stream))
        )
        length = draw(st.integers(0, 40) | st.integers(0, len(stream)))
        noise = draw(st.binary(max_size=40))
        stream = draw(
            st.sampled_from(
                [
                    overwrite(stream, place, noise),
                    overwrite(stream, place, bytes(length)),
                    stream[:place],
                    stream[:place] + stream[place + length :],
                    stream[:place] + noise + stream[place:],
                    stream[:place] + stream[place : place + length] + stream[place:],
                    stream + noise,
                    stream + stream[place:],
                ]
            )
        )
    return stream


def draw_damaged_headers(draw: st.DrawFn, patient: Sound) -> dict[str, bytes]:
    """Files with damaged headers, of one to three modalities."""
    first, *others = draw(st.lists(st.sampled_from(MODALITIES), min_size=1, max_size=3, unique=True))
    damaged = {first: draw_header_damage(draw, patient.images[first], places_too=True)}
    for modality in others:
        damaged[modality] = draw_header_damage(draw, patient.images[modality], places_too=False)
    return damaged


def draw_damaged_streams(draw: st.DrawFn, patient: Sound) -> dict[str, bytes]:
    """Files damaged after compression, of one to four modalities."""
    hit = draw(st.lists(st.sampled_from(MODALITIES), min_size=1, max_size=4, unique=True))
    return {modality: draw_stream_damage(draw, patient.files[modality]) for modality in hit}


@given(data=st.data())
def test_damaged_headers(sound, root, data):
    patient = sound(data.draw(st.sampled_from(list(SOUND))))
    check(root, patient, draw_damaged_headers(data.draw, patient))


@given(data=st.data())
def test_damaged_streams(sound, root, data):
    patient = sound(data.draw(st.sampled_from(STREAMS)))
    check(root, patient, draw_damaged_streams(data.draw, patient))
