"""One fault at a time: every broken, hostile or odd study is refused by name, before memory is taken for it."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from deploy.hospital.study.choose import StudyRefused, choose_series
from deploy.hospital.study.codestream import claimed_size
from deploy.hospital.study.headers import _read
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.listing import is_dicom, list_files
from deploy.hospital.study.series import Series
from deploy.hospital.study.study import Study, find_studies
from deploy.hospital.study.volume_reader import read_volume
from tests.deploy.hospital.heads import head
from tests.deploy.hospital.writer import LOOKS, Paper, save, write_series, write_study
from toolkit.errors import CohortError, PatientRefused, RuntimeUnavailable

GE = LOOKS["ge"]
SMALL = {name: head(name, (16, 18, 14), (9, 9, 9)) for name in GE}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("whole"), SMALL)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "study")


def edit(file: Path, change: Callable[[Dataset], object]) -> None:
    ds = pydicom.dcmread(file)
    change(ds)
    save(ds, file)


def only(folder: Path) -> Study:
    (study,) = find_studies(folder)
    return study


def flair(study: Study) -> Series:
    return next(series for series in study.series if series.number == 3)


def refused(folder: Path) -> str:
    with pytest.raises(StudyRefused) as refusal:
        choose_series(only(folder), SeriesRules())
    return str(refusal.value)


def each(folder: Path, change: Callable[[Dataset, int], object]) -> None:
    for index, file in enumerate(sorted((folder / "0003").iterdir())):
        edit(file, lambda ds, index=index: change(ds, index))


def test_a_missing_slice(folder: Path) -> None:
    (folder / "0003" / "0006.dcm").unlink()
    assert "flair missing: series 3: has 1 slice missing: 18.00 mm from" in refused(folder)


def test_a_position_taken_twice(folder: Path) -> None:
    def again(ds: Dataset) -> None:
        ds.SOPInstanceUID += ".1"
        ds.EchoTime = 156

    shutil.copy(folder / "0003" / "0006.dcm", folder / "0003" / "copy.dcm")
    edit(folder / "0003" / "copy.dcm", again)
    assert "at positions taken twice (echo times 155 and 156 ms)" in refused(folder)


def test_a_file_that_is_there_twice_counts_once(folder: Path) -> None:
    shutil.copy(folder / "0003" / "0006.dcm", folder / "again.dcm")
    study = only(folder)
    assert [one.reason for one in flair(study).rejected] == ["is a copy of 0006.dcm"]
    assert len(choose_series(study, SeriesRules()).chosen) == 4


def test_the_same_image_in_another_coding_is_a_copy(folder: Path) -> None:
    write_series(folder / "again", SMALL["flair"], GE["flair"], Paper(syntax=JPEG2000Lossless))
    series = flair(only(folder))
    assert len(series.instances) == len(series.rejected) == 14
    np.testing.assert_array_equal(read_volume(series).voxels, SMALL["flair"].voxels)


@pytest.mark.parametrize("name", ["0000.dcm", "again.dcm"])  # sorted before and after the true one
def test_a_copy_with_other_pixels_is_refused(folder: Path, name: str) -> None:
    shutil.copy(folder / "0003" / "0006.dcm", folder / "0003" / name)
    edit(folder / "0003" / name, lambda ds: setattr(ds, "PixelData", b"\1" + ds.PixelData[1:]))
    names = " and ".join(sorted(("0006.dcm", name)))
    assert f"{names} differ and carry the same SOPInstanceUID" in refused(folder)


def test_the_same_bytes_with_another_sign_are_no_copy(folder: Path) -> None:
    shutil.copy(folder / "0003" / "0006.dcm", folder / "again.dcm")
    for file in (folder / "0003" / "0006.dcm", folder / "again.dcm"):
        edit(file, lambda ds: setattr(ds, "PixelData", b"\xff" * len(ds.PixelData)))
    edit(folder / "again.dcm", lambda ds: setattr(ds, "PixelRepresentation", 1))
    assert "0006.dcm and again.dcm differ and carry the same SOPInstanceUID" in refused(folder)


def test_a_copy_that_is_cut_off_is_refused(folder: Path) -> None:
    content = (folder / "0003" / "0006.dcm").read_bytes()
    (folder / "again.dcm").write_bytes(content[:-100])
    assert "0006.dcm and again.dcm differ and carry the same SOPInstanceUID" in refused(folder)


def test_a_copy_of_another_patient_is_refused(folder: Path) -> None:
    shutil.copy(folder / "0003" / "0006.dcm", folder / "again.dcm")
    edit(folder / "again.dcm", lambda ds: setattr(ds, "PatientID", "P2"))
    assert "differ in the patient's id; again.dcm is the odd one" in refused(folder)


def test_pixels_are_read_only_of_files_that_are_there_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def noted(stream: BinaryIO, pixels: bool, keywords: list[str] | None = None) -> Dataset:
        if pixels:
            read.append(stream)
        return _read(stream, pixels, keywords)

    monkeypatch.setattr("deploy.hospital.study.headers._read", noted)
    only(folder)
    assert len(read) == 0
    shutil.copy(folder / "0003" / "0006.dcm", folder / "again.dcm")
    only(folder)
    assert len(read) == 2


def test_two_files_of_one_uid(folder: Path) -> None:
    edit(
        folder / "0003" / "0006.dcm",
        lambda ds: setattr(ds, "SOPInstanceUID", pydicom.dcmread(folder / "0003" / "0007.dcm").SOPInstanceUID),
    )
    assert "differ and carry the same SOPInstanceUID" in refused(folder)


def test_mixed_orientations(folder: Path) -> None:
    edit(folder / "0003" / "0006.dcm", lambda ds: setattr(ds, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]))
    assert "has images in 2 orientations: 1 of 14 are turned, 0006.dcm for one" in refused(folder)


def test_a_tilted_stack(folder: Path) -> None:
    def lean(ds: Dataset, index: int) -> None:
        place = np.array(ds.ImagePositionPatient, float) + 2.0 * index * np.array(ds.ImageOrientationPatient[3:], float)
        ds.ImagePositionPatient = [round(float(x), 4) for x in place]

    each(folder, lean)
    assert "is tilted: its slices are shifted against each other, the stack leans by 12.5 degrees" in refused(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "Rows", 17), "differ in rows (18, 17); 0006.dcm is the odd one"),
        (lambda ds: setattr(ds, "PixelSpacing", [9, 9.2]), "different pixel spacings"),
        (lambda ds: setattr(ds, "EchoTime", 20), "echo times from 20 to 155 ms"),
        (lambda ds: delattr(ds, "ImagePositionPatient"), "0006.dcm has no usable position"),
        (lambda ds: setattr(ds, "ImageOrientationPatient", [1, 1, 0, 0, 1, 0]), "0006.dcm has no usable orientation"),
        (lambda ds: setattr(ds, "RescaleSlope", 0), "0006.dcm has the rescale slope 0"),
        (lambda ds: setattr(ds, "PatientID", "P2"), "differ in the patient's id; 0006.dcm is the odd one"),
        (lambda ds: setattr(ds, "SeriesDescription", "AX T2"), "different names; 0006.dcm is one"),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "RGB"), "differ in colour"),
    ],
)
def test_one_odd_slice(folder: Path, change: Callable[[Dataset], object], reason: str) -> None:
    edit(folder / "0003" / "0006.dcm", change)
    assert reason in refused(folder)


def test_too_little_of_a_head(folder: Path) -> None:
    for file in sorted((folder / "0003").iterdir())[8:]:
        file.unlink()
    assert "has 8 slices; 12 at least are needed" in refused(folder)


def test_slopes_of_slices_differ(folder: Path) -> None:
    each(folder, lambda ds, index: (setattr(ds, "RescaleSlope", 1 + index), setattr(ds, "RescaleIntercept", index)))
    written = SMALL["flair"].voxels
    found = read_volume(flair(only(folder))).voxels
    for index in range(written.shape[2]):
        np.testing.assert_array_equal(found[:, :, index], written[:, :, index] * (1 + index) + index)


def rescaled(ds: Dataset, **values: str | None) -> None:
    """Slope 2 and intercept -5, unless something else is asked for; None leaves one out."""
    for keyword, value in {"RescaleSlope": "2", "RescaleIntercept": "-5", **values}.items():
        if value is None:
            ds.pop(keyword, None)
        else:
            ds[keyword] = pydicom.DataElement(keyword, "DS", value, validation_mode=pydicom.config.IGNORE)


UNREADABLE = [
    ("RescaleSlope", "NaN", "0006.dcm has the rescale slope NaN, which is not one finite number"),
    ("RescaleSlope", "2\\2", "0006.dcm has the rescale slope 2\\2, which is not one finite number"),
    ("RescaleIntercept", "inf", "0006.dcm has the rescale intercept inf, which is not one finite number"),
]
MISSING = [
    ("RescaleSlope", "", "has images with and without a rescale slope: 1 of 14 have none, 0006.dcm for one"),
    ("RescaleIntercept", "", "has images with and without a rescale intercept: 1 of 14 have none, 0006.dcm for one"),
]


@pytest.mark.parametrize(("keyword", "value", "reason"), [*UNREADABLE, *MISSING])
def test_one_slice_with_another_rescaling(folder: Path, keyword: str, value: str, reason: str) -> None:
    each(folder, lambda ds, index: rescaled(ds, **({keyword: value} if index == 5 else {})))
    assert reason in refused(folder)


def test_a_slope_of_letters(folder: Path) -> None:
    each(folder, lambda ds, _: rescaled(ds, RescaleSlope="2.125"))
    file = folder / "0003" / "0006.dcm"
    file.write_bytes(file.read_bytes().replace(b"2.125", b"2.l25"))
    assert "0006.dcm has the rescale slope 2.l25, which is not one finite number" in refused(folder)


def test_a_slope_that_one_slice_lacks(folder: Path) -> None:
    each(folder, lambda ds, _: rescaled(ds))
    edit(folder / "0003" / "0006.dcm", lambda ds: delattr(ds, "RescaleSlope"))
    assert MISSING[0][2] in refused(folder)


@pytest.mark.parametrize(("keyword", "value", "reason"), [*UNREADABLE, *MISSING])
def test_one_image_of_an_enhanced_file_with_another_rescaling(
    tmp_path: Path, keyword: str, value: str, reason: str
) -> None:
    (file,) = write_series(tmp_path, SMALL["flair"], GE["flair"], Paper(enhanced=True))

    def change(ds: Dataset) -> None:
        rescaled(ds.PerFrameFunctionalGroupsSequence[5].PixelValueTransformationSequence[0], **{keyword: value})

    edit(file, change)
    assert reason.replace("0006.dcm", "0001.dcm") in flair(only(tmp_path)).fault


def test_a_rescaling_of_an_enhanced_file_that_is_no_sequence(tmp_path: Path) -> None:
    (file,) = write_series(tmp_path, SMALL["flair"], GE["flair"], Paper(enhanced=True))

    def change(ds: Dataset) -> None:
        for group in ds.PerFrameFunctionalGroupsSequence:
            group[0x00289145] = pydicom.DataElement(0x00289145, "LO", "2")

    edit(file, change)
    with pytest.raises(CohortError, match="is damaged: its PixelValueTransformationSequence is no sequence"):
        find_studies(tmp_path)


@pytest.mark.parametrize(("slope", "intercept"), [(None, "-5"), ("2", None), ("2", "-5"), (None, None), ("", "")])
def test_a_slope_or_intercept_that_no_image_has(folder: Path, slope: str | None, intercept: str | None) -> None:
    each(folder, lambda ds, _: rescaled(ds, RescaleSlope=slope, RescaleIntercept=intercept))
    found = read_volume(flair(only(folder))).voxels
    np.testing.assert_array_equal(found, SMALL["flair"].voxels * float(slope or 1) + float(intercept or 0))


def test_a_damaged_slope_is_not_believed(folder: Path) -> None:
    each(folder, lambda ds, _: setattr(ds, "RescaleSlope", "1e30"))
    with pytest.raises(PatientRefused, match="a damaged slope"):
        read_volume(flair(only(folder)))


def test_an_empty_series(folder: Path) -> None:
    each(folder, lambda ds, _: setattr(ds, "PixelData", bytes(len(ds.PixelData))))
    with pytest.raises(PatientRefused, match="series 3 is empty: every voxel is 0"):
        read_volume(flair(only(folder)))


def test_pixels_cut_off(folder: Path) -> None:
    file = folder / "0003" / "0006.dcm"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        PatientRefused, match=r"series 3 cannot be read: 0006.dcm is cut off: 476 of 576 bytes|0006.dcm is damaged"
    ):
        read_volume(flair(only(folder)))


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"\0" * 300, "is not DICOM")])
def test_files_that_are_none(folder: Path, content: bytes, reason: str) -> None:
    (folder / "0003" / "0020.dcm").write_bytes(content)
    (folder / "README.txt").write_text("a viewer's file")
    (one,) = only(folder).rejected
    assert one.source.name == "0020.dcm"
    assert one.reason.startswith(reason)


def test_a_header_cut_off_is_named(folder: Path) -> None:
    file = folder / "0003" / "0006.dcm"
    file.write_bytes(file.read_bytes()[:300])
    study = only(folder)
    assert [one.source.name for one in study.rejected] == ["0006.dcm"]
    assert "1 slice missing" in refused(folder)


def test_objects_that_are_no_images_are_left_out(folder: Path) -> None:
    for number, name in enumerate(("test-SR.dcm", "rtplan.dcm", "waveform_ecg.dcm"), 90):
        ds = pydicom.dcmread(get_testdata_file(name, download=False))
        ds.StudyInstanceUID, ds.SeriesNumber = only(folder).uid, number
        ds.save_as(folder / name)
    selection = choose_series(only(folder), SeriesRules())
    assert [row.outcome for row in selection.rows if row.series.number in (90, 91, 92)] == ["left out"] * 3


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_an_image_of_sixty_five_thousand_rows(folder: Path, keyword: str) -> None:
    each(folder, lambda ds, _: setattr(ds, keyword, 65535))
    (reason,) = {one.reason for one in only(folder).rejected}
    assert "the limit is 20000 of 2048 x 2048" in reason


def test_an_image_of_a_billion_frames(tmp_path: Path) -> None:
    (file,) = write_series(tmp_path, SMALL["flair"], GE["flair"], Paper(enhanced=True))
    for count, reason in ((10**9, "asks for 1000000000 images"), (15, "says it has 15 images and describes 14")):
        edit(file, lambda ds, count=count: setattr(ds, "NumberOfFrames", count))
        with pytest.raises(CohortError, match=reason):
            find_studies(tmp_path)


def test_sequences_nested_too_deep(folder: Path) -> None:
    deep = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" * 20_000
    file = folder / "0003" / "0006.dcm"
    content = file.read_bytes()
    at = content.index(b"\x08\x00\x3e\x10")
    file.write_bytes(content[:at] + b"\x08\x00\x32\x10SQ\0\0\xff\xff\xff\xff" + deep + content[at:])
    assert [one.reason for one in only(folder).rejected] == ["has sequences nested too deep"]


def test_a_length_that_asks_for_four_gigabytes(folder: Path) -> None:
    file = folder / "0003" / "0006.dcm"
    content = file.read_bytes()
    at = content.index(b"\x08\x00\x3e\x10")
    file.write_bytes(content[:at] + b"\x08\x00\x16\x00UN\0\0\xfe\xff\xff\xff" + content[at:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [one.source.name for one in only(folder).rejected] == ["0006.dcm"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_deflated_file_that_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.hospital.study.headers.LARGEST_INFLATED", 1000)
    write_series(tmp_path, SMALL["flair"], GE["flair"], Paper(syntax=DeflatedExplicitVRLittleEndian))
    with pytest.raises(CohortError, match="inflates to more than"):
        find_studies(tmp_path)


def test_a_codestream_that_claims_another_size(tmp_path: Path) -> None:
    files = write_series(tmp_path, SMALL["flair"], GE["flair"], Paper(syntax=JPEG2000Lossless))
    content = bytearray(files[3].read_bytes())
    at = content.index(b"\xff\x4f\xff\x51")
    assert claimed_size(bytes(content[at:])) == (18, 16, 1)
    content[at + 8 : at + 16] = struct.pack(">II", 60000, 60000)
    files[3].write_bytes(content)
    with pytest.raises(PatientRefused, match=r"0004\.dcm claims 60000 x 60000 x 1 in its compressed image"):
        read_volume(flair(only(tmp_path)))


def zipped(folder: Path, out: Path) -> Path:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.dcm")):
            archive.write(file, file.relative_to(folder))
    return out


def test_a_zip_holds_the_same_study(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "study.zip")
    assert is_dicom(archive)
    series = choose_series(only(archive), SeriesRules()).chosen["flair"]
    np.testing.assert_array_equal(read_volume(series).voxels, SMALL["flair"].voxels)


def test_members_that_lead_out_of_a_zip(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "study.zip")
    content = (folder / "0003" / "0001.dcm").read_bytes()
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as out:
        out.writestr("../../outside.dcm", content)
        out.writestr("/etc/outside.dcm", content)
        out.writestr(link, "/etc/passwd")
        out.writestr("bomb.dcm", content[:132] + bytes(40 << 20))
        out.writestr("more.zip", archive.read_bytes())
    reasons = {one.source.member: one.reason for one in only(archive).rejected}
    assert reasons["../../outside.dcm"] == reasons["/etc/outside.dcm"] == "points outside the zip"
    assert reasons["link.dcm"] == "is a symbolic link inside a zip"
    assert "as only a zip bomb does" in reasons["bomb.dcm"]
    assert "a zip inside a zip" in reasons["more.zip"]


def test_a_damaged_zip(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "study.zip")
    content = bytearray(archive.read_bytes())
    content[2000:2100] = bytes(100)
    archive.write_bytes(content)
    assert any(one.reason.startswith(("cannot be", "is not DICOM")) for one in only(archive).rejected)
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(CohortError, match="no DICOM file"):
        find_studies(archive)


def test_a_zip_of_too_many_bytes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.hospital.study.zips.LARGEST_ZIP", 1000)
    with pytest.raises(CohortError, match="the limits of a zip are 100000 files"):
        find_studies(zipped(folder, tmp_path / "study.zip"))


def test_pipes_links_and_circles(folder: Path) -> None:
    os.mkfifo(folder / "0003" / "pipe.dcm")
    (folder / "round").symlink_to(folder)
    (folder / "broken.dcm").symlink_to(folder / "nothing")
    study = only(folder)
    assert {one.source.name: one.reason for one in study.rejected} == {
        "pipe.dcm": "is a pipe, a socket or a device, not a file",
        "broken.dcm": "cannot be opened: No such file or directory",
    }
    assert len(choose_series(study, SeriesRules()).chosen) == 4


def write_index(folder: Path, names: list[list[str]]) -> Path:
    source = get_testdata_file("DICOMDIR", download=False)
    if source is None:
        pytest.skip("pydicom's DICOMDIR is not at hand")
    ds = pydicom.dcmread(source)
    record = next(item for item in ds.DirectoryRecordSequence if "ReferencedFileID" in item)
    items = []
    for name in names:
        item = Dataset()
        item.DirectoryRecordType = record.DirectoryRecordType
        item[0x00041500] = pydicom.DataElement(0x00041500, "CS", name, validation_mode=pydicom.config.IGNORE)
        items.append(item)
    ds.DirectoryRecordSequence = items
    ds.save_as(folder / "DICOMDIR")
    return folder / "DICOMDIR"


def as_on_a_disc(folder: Path) -> list[list[str]]:
    """Names of capitals without an ending, as a DICOMDIR has them; the first file's own is in small letters."""
    names = []
    for index, file in enumerate(sorted(folder.rglob("*.dcm"))):
        name = f"IM{index:04d}"
        file.rename(file.with_name(name.lower() if not index else name))
        names.append([file.parent.name, name])
    return names


def test_a_dicomdir_names_the_files(folder: Path) -> None:
    index = write_index(folder, [*as_on_a_disc(folder), ["..", "SECRET"], ["0003", "GONE"]])
    assert is_dicom(index)
    study = only(index)
    assert len(choose_series(study, SeriesRules()).chosen) == 4
    assert {one.source.member: one.reason for one in study.rejected} == {
        "../SECRET": "is listed in the DICOMDIR, and points outside its folder",
        "0003/GONE": "is listed in the DICOMDIR, and is missing",
    }
    assert len(choose_series(only(folder), SeriesRules()).chosen) == 4  # the folder as well


def test_a_dicomdir_that_is_linked_out_of_its_folder(folder: Path, tmp_path: Path) -> None:
    names = as_on_a_disc(folder)
    shutil.move(folder / "0003", tmp_path / "elsewhere")
    (folder / "0003").symlink_to(tmp_path / "elsewhere")
    reasons = [one.reason for one in only(write_index(folder, [names[1], names[-1]])).rejected]
    assert reasons == ["is a link that leads out of the DICOMDIR's folder"]


def test_names_in_japanese(tmp_path: Path) -> None:
    paper = Paper(name="Yamada^Tarou=山田^太郎=やまだ^たろう")
    look = replace(GE["t1ce"], description="T1 造影後", agent=None)
    study = only(write_study(tmp_path / "検査", SMALL, looks={"t1ce": look}, paper=paper))
    assert choose_series(study, SeriesRules()).chosen["t1ce"].description == "T1 造影後"


def test_a_name_in_an_older_japanese_coding(folder: Path) -> None:
    def name(ds: Dataset) -> None:
        ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        ds.PatientName, ds.SeriesDescription = "Yamada^Tarou=山田^太郎", "FLAIR 水抑制"

    for file in (folder / "0003").iterdir():
        edit(file, name)
    assert choose_series(only(folder), SeriesRules()).chosen["flair"].description == "FLAIR 水抑制"


def test_several_studies_in_one_folder(tmp_path: Path) -> None:
    write_study(tmp_path / "a", SMALL, paper=Paper(seed="a"))
    write_study(tmp_path / "b", SMALL, paper=Paper(seed="b"))
    studies = find_studies(tmp_path)
    assert len({study.key for study in studies}) == 2
    assert all(len(choose_series(study, SeriesRules()).chosen) == 4 for study in studies)


def test_a_folder_of_nifti_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "a_t1.nii.gz").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "notes").write_text("nothing")
    assert not is_dicom(tmp_path)
    with pytest.raises(CohortError, match="no DICOM file that can be read"):
        find_studies(tmp_path)
    with pytest.raises(CohortError, match="does not exist"):
        find_studies(tmp_path / "nowhere")


def test_without_the_extra_one_sentence_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.hospital.study.files.find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install 'glioma-grade\[hospital\]'"):
        find_studies(folder)


def test_links_in_a_mesh_and_a_deep_folder_take_no_time(folder: Path, tmp_path: Path) -> None:
    """Twelve folders that all link to each other have more paths than could ever be walked."""
    mesh = tmp_path / "mesh"
    for one in range(12):
        (mesh / f"d{one}").mkdir(parents=True)
        for other in range(12):
            (mesh / f"d{one}" / f"l{other}").symlink_to(f"../d{other}")
    assert not is_dicom(mesh)
    deep = mesh
    for _ in range(1200):
        deep /= "d"
        os.mkdir(deep)  # noqa: PTH102 - one at a time: the path is longer than a recursion is deep
    assert not is_dicom(mesh)
    while deep != mesh:
        deep.rmdir()  # shutil.rmtree recurses
        deep = deep.parent
    (mesh / "d11" / "study").symlink_to(folder)
    assert is_dicom(mesh)
    assert len(list_files(mesh).sources) == len(list_files(folder).sources)
