"""The file system: links, folders, pipes, rights, leftovers."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from nibabel.nifti1 import Nifti1PairHeader

from .build import Case, Change, Draft, beside, brain, compressed, graded, on, refused, renamed, then, without

OTHER = compressed(b"another image")
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200)


def at(modality: str, act: Callable[[Path], None]) -> Change:
    """Do something with one file after it is written."""
    return then(lambda folder, draft: act(folder / draft.file(modality)))


def without_then(modality: str, act: Callable[[Path], None]) -> Change:
    """Put something else in a file's place."""

    def instead(file: Path) -> None:
        file.unlink()
        act(file)

    return at(modality, instead)


def to(target: str) -> Callable[[Path], None]:
    return lambda file: file.symlink_to(target)


def moved_away(absolute: bool) -> Callable[[Path, Draft], None]:
    """All files lie elsewhere, in a hidden folder; the patient's folder holds links."""

    def move(folder: Path, _: Draft) -> None:
        store = folder / ".store"
        store.mkdir()
        for file in [path for path in folder.iterdir() if path.is_file()]:
            kept = file.rename(store / f"{file.name}.blob")
            file.symlink_to(kept if absolute else os.path.relpath(kept, folder))

    return move


def linked_folder(folder: Path, _: Draft) -> None:
    """The folder itself is a link to one that is not looked into."""
    kept = folder.rename(folder.parent / f".{folder.name}")
    folder.symlink_to(kept.name)


def folder_of(modality: str, inside: bool) -> Change:
    """A folder in a file's place, with or without the file in it."""

    def swap(file: Path) -> None:
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        if inside:
            (file / "image").write_bytes(content)

    return at(modality, swap)


def sparse(size: int) -> Callable[[Path], None]:
    def grow(file: Path) -> None:
        file.touch()
        os.truncate(file, size)

    return grow


def subfolder(name: str, *files: str) -> Change:
    def make(folder: Path, _: Draft) -> None:
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).write_bytes(b"anything")

    return then(make)


def read_only(folder: Path, _: Draft) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def same_as(modality: str, other: str, link: Callable[[Path, Path], None]) -> Change:
    """One file is another one's double."""

    def make(folder: Path, draft: Draft) -> None:
        (folder / draft.file(modality)).unlink()
        link(folder / draft.file(other), folder / draft.file(modality))

    return then(make)


def half_pair() -> tuple[Change, Change]:
    """T1 is a header alone; its voxels lie in another file."""
    return on("t1", kind=Nifti1PairHeader, between=b"", pack=lambda content: content[:348]), renamed("t1", "x_t1.hdr")


DOUBLE = "same voxels"
VOXELS = brain("t1").tobytes(order="F")

CASES: list[Case] = [
    refused("link_broken", "broken link", without_then("t1", to("nowhere.nii.gz"))),
    refused("link_broken_all", "broken link", *(without_then(m, to("gone")) for m in ("flair", "t1", "t1ce", "t2"))),
    refused("link_to_itself", "cannot be read", without_then("t1", lambda file: file.symlink_to(file.name))),
    refused(
        "link_round",
        "cannot be read|broken",
        without_then("t2", to("b")),
        then(lambda f, _: (f / "b").symlink_to("link_round_t2.nii.gz")),
    ),
    refused("link_to_folder", "folder", without_then("t1ce", to("."))),
    refused("link_into_a_file", "cannot be read", without_then("flair", to("link_into_a_file_t1.nii.gz/x"))),
    refused("link_to_zeros_without_end", "pipe or a device", without_then("t1", to("/dev/zero"))),
    refused("link_to_null", "pipe or a device", without_then("t1", to("/dev/null"))),
    refused("pipe", "pipe or a device", without_then("t2", os.mkfifo)),
    refused("giant", "too large", without_then("t1", sparse(1 << 40))),
    refused("large_zeros", "not a NIfTI", without_then("t1", sparse(1 << 24))),
    refused("folder_for_file", "folder", folder_of("t1", inside=False)),
    refused("folder_for_file_with_it_inside", "folder", folder_of("t2", inside=True)),
    refused("double_by_link", DOUBLE, same_as("t1ce", "t1", lambda a, b: b.symlink_to(a.name))),
    refused("double_by_hard_link", DOUBLE, same_as("t2", "t1", lambda a, b: b.hardlink_to(a))),
    refused("double_by_copy", DOUBLE, same_as("flair", "t2", lambda a, b: shutil.copy(a, b) and None)),
    refused("pair_of_files", "pair", *half_pair(), beside("x_t1.img", VOXELS)),
    refused("pair_compressed", "pair", *half_pair(), beside("x_t1.img.gz", compressed(VOXELS))),
    refused("pair_without_header", "not a NIfTI|truncated|x_t2.img", without("t2"), beside("x_t2.img", b"voxels")),
    refused("pair_beside_single", "more than one", beside("x_t1.hdr", b"h"), beside("x_t1.img", b"i")),
    refused("only_hidden", "t1 missing", renamed("t1", "._x_t1.nii.gz")),
    graded("links_relative", then(moved_away(absolute=False))),
    graded("links_absolute", then(moved_away(absolute=True))),
    graded(
        "links_named_otherwise",
        at("t1", lambda file: file.rename(file.parent / "blob")),
        then(lambda f, d: (f / d.file("t1")).symlink_to("blob")),
    ),
    graded("folder_linked", then(linked_folder)),
    graded("folder_links_to_itself", then(lambda folder, _: (folder / "again").symlink_to("."))),
    graded("link_loop_beside", then(lambda folder, _: (folder / "loop").symlink_to("loop"))),
    graded("read_only", then(read_only)),
    graded(
        "dotfiles",
        *(beside(f"._dotfiles_{m}.nii.gz", APPLE_DOUBLE) for m in ("flair", "t1")),
        beside(".DS_Store"),
        note="2 hidden",
    ),
    graded("hidden_folder", subfolder(".git", "x_t1.nii.gz")),
    graded("mac_folder", subfolder("__MACOSX", "._x_t1.nii.gz")),
    graded("leftovers", beside("x_t1.nii.gz.part"), beside("x_t1.nii.gz~"), beside("Thumbs.db"), beside("x_t1.json")),
    graded("empty_folder_inside", subfolder("notes")),
    graded("empty_image_beside", beside("localizer.nii.gz", b"")),
    graded("masks_beside", beside("x_seg.nii.gz", OTHER), beside("y_seg.nii.gz", OTHER)),
]
