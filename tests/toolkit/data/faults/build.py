"""Tiny patients made in memory, changed by a case, then written: four modalities of 24 x 24 x 16 voxels, 1 mm."""

import gzip
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header

MODALITIES = ("flair", "t1", "t1ce", "t2")
SHAPE = (24, 24, 16)
LPS = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])  # as BraTS has it
BRAIN = (slice(4, 20), slice(4, 20), slice(3, 13))


@cache
def _brain(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    voxels = np.zeros(SHAPE)
    voxels[BRAIN] = rng.normal(400, 60, voxels[BRAIN].shape)
    voxels[9:14, 9:14, 6:10] += 250
    return voxels.astype(np.int16)


def brain(modality: str) -> np.ndarray:
    """int16 (24, 24, 16): 0 outside, about 150 to 900 inside; each modality its own numbers."""
    return _brain(MODALITIES.index(modality)).copy()


def compressed(content: bytes) -> bytes:
    """One gzip member without a time or a name."""
    return gzip.compress(content, 6, mtime=0)


@dataclass
class Image:
    """What one file is made of."""

    voxels: np.ndarray
    affine: np.ndarray = field(default_factory=LPS.copy)
    qform: np.ndarray | None = None  # another affine for the qform
    sform_code: int = 1
    qform_code: int = 1
    kind: type = Nifti1Header
    order: str = "<"
    fields: dict[str, Any] = field(default_factory=dict)  # written over the finished header, right or wrong
    between: bytes = bytes(4)  # from the header to the voxels: the extension flag, extensions
    pack: Callable[[bytes], bytes] = compressed

    def header(self) -> bytes:
        """The header's bytes."""
        header = self.kind(endianness=self.order)
        header.set_data_dtype(self.voxels.dtype)
        header.set_data_shape(self.voxels.shape)
        header.set_xyzt_units("mm")
        with np.errstate(all="ignore"):  # affines without an inverse are wanted here
            header.set_qform(self.affine if self.qform is None else self.qform)
        header.set_sform(self.affine)
        header["sform_code"] = self.sform_code
        header["qform_code"] = self.qform_code
        header["vox_offset"] = header.sizeof_hdr + len(self.between)
        header["scl_slope"] = 1
        header["scl_inter"] = 0
        for name, value in self.fields.items():
            for place, part in value.items() if isinstance(value, dict) else [(slice(None), value)]:
                if header[name].ndim:
                    header[name][place] = part
                else:
                    header[name] = part
        return bytes(header.binaryblock)

    def content(self) -> bytes:
        """The file before compression."""
        voxels = self.voxels.astype(self.voxels.dtype.newbyteorder(self.order))
        return self.header() + self.between + voxels.tobytes(order="F")


@dataclass
class Draft:
    """A patient before it is written."""

    folder: str = "patient"
    names: dict[str, str] = field(default_factory=lambda: dict.fromkeys(MODALITIES, ""))  # "" for the usual name
    images: dict[str, Image] = field(default_factory=lambda: {name: Image(brain(name)) for name in MODALITIES})
    extra: dict[str, bytes] = field(default_factory=dict)  # other files of the folder
    afterwards: list[Callable[[Path], None]] = field(default_factory=list)  # with the patient's folder

    def file(self, modality: str) -> str:
        """Name of a modality's file."""
        return self.names[modality] or f"{Path(self.folder).name}_{modality}.nii.gz"

    def write(self, root: Path) -> Path:
        """Write below `root`.

        Returns:
            The patient's folder.
        """
        folder = root / self.folder
        folder.mkdir(parents=True)
        files = {self.file(name): image.pack(image.content()) for name, image in self.images.items()}
        for name, content in (files | self.extra).items():
            (folder / name).write_bytes(content)
        for act in self.afterwards:
            act(folder)
        return folder


Change = Callable[[Draft], None]


def on(modalities: str, **changes: Any) -> Change:
    """Change some attributes of the images of some modalities (words, or `all`).

    A function given for `voxels`, `affine` or `pack` is applied to the old value, or for `pack` to the content.
    """

    def change(draft: Draft) -> None:
        for name in MODALITIES if modalities == "all" else modalities.split():
            image = draft.images[name]
            for attribute, value in changes.items():
                applied = callable(value) and attribute in ("voxels", "affine")
                setattr(image, attribute, value(getattr(image, attribute)) if applied else value)

    return change


def header(modalities: str, **fields: Any) -> Change:
    """Overwrite header fields; {index: value} for parts of one."""
    return on(modalities, fields=fields)


def packed(modalities: str, *steps: Callable[[bytes], bytes]) -> Change:
    """Turn the content into the file by these steps, one after the other."""

    def pack(content: bytes) -> bytes:
        for step in steps:
            content = step(content)
        return content

    return on(modalities, pack=pack)


def stored(modalities: str, axes: tuple[int, ...] = (0, 1, 2), mirrored: tuple[int, ...] = ()) -> Change:
    """Store the voxels in another order of axes, some mirrored, with the affine that belongs to it."""

    def change(draft: Draft) -> None:
        for name in MODALITIES if modalities == "all" else modalities.split():
            image = draft.images[name]
            turn = np.eye(4)
            for axis in mirrored:
                turn[axis, axis], turn[axis, 3] = -1, image.voxels.shape[axis] - 1
            image.voxels = np.flip(image.voxels, mirrored).transpose(axes)
            image.affine = image.affine @ turn @ np.eye(4)[:, [*axes, 3]]

    return change


def named(folder: str, pattern: str = "", **tokens: str) -> Change:
    """Name the folder, and the files by a pattern with {id} and {token}."""

    def change(draft: Draft) -> None:
        draft.folder = folder
        if pattern:
            for name in draft.names:
                draft.names[name] = pattern.format(id=Path(folder).name, token=tokens.get(name, name))

    return change


def renamed(modality: str, name: str) -> Change:
    """Give one file another name."""
    return lambda draft: operator.setitem(draft.names, modality, name)


def without(modality: str) -> Change:
    """Leave one file out."""
    return lambda draft: operator.delitem(draft.images, modality)


def beside(name: str, content: bytes = b"anything") -> Change:
    """Put another file into the folder."""
    return lambda draft: operator.setitem(draft.extra, name, content)


def then(act: Callable[[Path, Draft], None]) -> Change:
    """Do something with the written folder."""
    return lambda draft: draft.afterwards.append(lambda folder: act(folder, draft))


@dataclass(frozen=True)
class Case:
    """One kind of fault or oddity.

    Attributes:
        name: of the case, and of the folder unless the case names one.
        reason: pattern of the refusal's reason; empty for a patient that must be graded.
        changes: what is done to a sound patient.
        like: changes of the patient whose scan must come out; None when no scan is known beforehand.
        note: pattern that one of the notes must match.
        moved: the scan is the same, but lies elsewhere in the patient's space.
    """

    name: str
    reason: str
    changes: tuple[Change, ...]
    like: tuple[Change, ...] | None = None
    note: str = ""
    moved: bool = False

    def write(self, root: Path) -> Path:
        """Write the patient below `root`.

        Returns:
            Its folder.
        """
        return drafted(self.changes, self.name).write(root)


def graded(name: str, *changes: Change, **rest: Any) -> Case:
    """A case that must be graded, with the sound patient's scan unless `like` says otherwise."""
    return Case(name, "", changes, **{"like": (), **rest})


def refused(name: str, reason: str, *changes: Change) -> Case:
    """A case that must be refused."""
    return Case(name, reason, changes)


def drafted(changes: tuple[Change, ...], name: str = "patient") -> Draft:
    """A sound patient with changes."""
    draft = Draft(name)
    for change in changes:
        change(draft)
    return draft
