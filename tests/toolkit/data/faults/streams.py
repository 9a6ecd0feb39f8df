"""Faults of compression, and files that are no NIfTI at all."""

import bz2
import gzip
import io
import itertools
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import imagecodecs

from .build import Case, Change, compressed, graded, on, packed, refused, renamed

Step = Callable[[bytes], bytes]


def cut(size: float) -> Step:
    """The first bytes: a number, a share, or all but some."""
    return lambda data: data[: int(size * len(data)) if 0 < size < 1 else int(size)]


def put(place: int, new: bytes) -> Step:
    """Overwrite bytes; a negative place counts from the end."""
    return lambda data: data[: place % len(data)] + new + data[place % len(data) + len(new) :]


def flipped(share: float) -> Step:
    """One bit changed at a share of the length."""
    return lambda data: put(int(share * len(data)), bytes([data[int(share * len(data))] ^ 16]))(data)


def add(tail: bytes) -> Step:
    return lambda data: data + tail


def only(content: bytes) -> Change:
    """The t1 file holds this."""
    return packed("t1", lambda _: content)


def members(*ends: int, between: bytes = b"", last: Step = bytes) -> Step:
    """Cut the content into gzip members at these places; `last` damages the last of them."""

    def pack(content: bytes) -> bytes:
        edges = [0, *ends, len(content)]
        parts = [compressed(content[a:b]) for a, b in itertools.pairwise(edges)]
        return between.join([*parts[:-1], last(parts[-1])])

    return pack


def blocks(content: bytes) -> bytes:
    """As bgzip writes: members of 4 KiB with an extra field, and an empty one at the end."""
    parts = [content[i : i + 4096] for i in range(0, len(content), 4096)]
    return b"".join(with_fields(4, b"\6\0BC\2\0\0\0")(compressed(part)) for part in [*parts, b""])


def with_fields(flags: int, fields: bytes) -> Step:
    """Optional fields of the gzip header (RFC 1952): 4 extra, 8 name, 16 comment, 2 checksum of the header."""

    def pack(stream: bytes) -> bytes:
        head = stream[:3] + bytes([flags]) + stream[4:10] + fields
        check = struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
        return head + check + stream[10:]

    return pack


def level(number: int) -> Step:
    return lambda content: gzip.compress(content, number, mtime=0)


def in_zip(content: bytes) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("t1.nii", content)
        return file.getvalue()


def in_tar(content: bytes) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            entry = tarfile.TarInfo("t1.nii")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
HTML = b"\n <!DOCTYPE html><html><body>404 Not Found</body></html>"
TRUNCATED = "truncated"
CORRUPT = "damaged|corrupt"

CASES: list[Case] = [
    *(graded(f"level_{n}", packed("t1 t2", level(n))) for n in (0, 1, 9)),
    refused("cut_in_gzip_magic", "truncated|NIfTI", packed("t1", compressed, cut(1))),
    refused("cut_in_gzip_header", TRUNCATED, packed("flair", compressed, cut(5))),
    refused("cut_behind_gzip_header", TRUNCATED, packed("t2", compressed, cut(10))),
    refused("cut_in_nifti_header", TRUNCATED, packed("t1ce", compressed, cut(90))),
    refused("cut_at_a_third", TRUNCATED, packed("t1", compressed, cut(0.33))),
    refused("cut_stored_blocks", TRUNCATED, packed("t1", level(0), cut(0.5))),
    refused("cut_before_checksum", TRUNCATED, packed("t1ce", compressed, cut(-8))),
    refused("cut_in_checksum", TRUNCATED, packed("flair", compressed, cut(-6))),
    refused("cut_in_length", TRUNCATED, packed("t2", compressed, cut(-1))),
    refused("cut_everywhere", TRUNCATED, packed("all", compressed, cut(0.8))),
    refused(
        "zeros_for_second_half",
        f"{CORRUPT}|{TRUNCATED}",
        packed("t1", compressed, lambda d: cut(0.5)(d) + bytes(len(d) // 2)),
    ),
    refused("zeros_inside", CORRUPT, packed("t2", compressed, put(3000, bytes(512)))),
    refused("bit_flipped", CORRUPT, packed("t1", compressed, flipped(0.6))),
    refused("bit_flipped_early", "damaged|corrupt|contradict", packed("t1ce", compressed, flipped(0.1))),
    refused("bit_flipped_stored", CORRUPT, packed("flair", level(0), flipped(0.7))),
    refused("checksum_wrong", CORRUPT, packed("t1", compressed, put(-8, b"\1\2\3\4"))),
    refused("length_wrong", CORRUPT, packed("t1ce", compressed, put(-4, b"\1\2\3\4"))),
    refused("checksum_and_length_wrong", CORRUPT, packed("t2", compressed, put(-8, bytes(8)))),
    refused("method_unknown", CORRUPT, packed("t1", compressed, put(2, b"\7"))),
    refused("flags_reserved", CORRUPT, packed("t1", compressed, put(3, b"\xe0"))),
    graded("field_name", packed("t1", compressed, with_fields(8, b"visit \xe9 1.nii\0"))),
    graded("field_long_comment", packed("t2", compressed, with_fields(16, b"c" * 100_000 + b"\0"))),
    graded("field_long_extra", packed("t1ce", compressed, with_fields(4, b"\xff\xff" + bytes(65535)))),
    graded("field_header_checksum", packed("flair", compressed, with_fields(10, b"name\0"))),
    graded("time_and_system_set", packed("all", compressed, put(4, b"\1\2\3\4\2\3"))),
    refused("header_checksum_wrong", CORRUPT, packed("t1", compressed, with_fields(10, b"a\0"), put(12, b"\0\0"))),
    refused("comment_never_ends", TRUNCATED, packed("t1", compressed, with_fields(16, b"c" * 50), cut(60))),
    *(graded(f"member_cut_at_{n}", packed("t1", members(n))) for n in (1, 10, 347, 348, 352, 600, 9000)),
    graded("members_many", packed("all", members(*range(50, 18000, 50)))),
    graded("member_first_empty", packed("t2", members(0))),
    graded("member_last_empty", packed("t2", lambda content: members(len(content))(content))),
    graded("members_blocks", packed("flair t1", blocks)),
    refused("member_second_checksum_wrong", CORRUPT, packed("t1", members(9000, last=put(-8, b"abcd")))),
    refused("member_second_length_wrong", CORRUPT, packed("t1", members(9000, last=put(-4, b"abcd")))),
    refused("member_second_cut", TRUNCATED, packed("t1ce", members(9000, last=cut(0.5)))),
    refused("member_second_missing", TRUNCATED, packed("t1ce", members(9000, last=cut(0)))),
    refused("member_garbage_between", TRUNCATED, packed("t2", members(9000, between=b"garbage"))),
    refused("member_too_many", "more data|contradict", packed("t1", compressed, lambda data: data + data)),
    refused("member_other_behind", "more data", packed("t1", compressed, add(compressed(b"x" * 18784)))),
    refused("members_by_the_million", "gzip members", packed("t1", lambda data: compressed(b"") * 70_000)),
    graded("garbage_behind", packed("t1", compressed, add(b"garbage")), note="7 bytes behind"),
    graded("garbage_like_the_end", packed("t1", compressed, lambda d: d + b"x" + d[-8:]), note="9 bytes behind"),
    graded("zeros_behind", packed("t1 t2", compressed, add(bytes(512)))),
    refused("garbage_like_gzip_behind", CORRUPT, packed("t1", compressed, add(b"\x1f\x8bgarbage"))),
    refused("content_one_byte_short", TRUNCATED, packed("t1", cut(-1), compressed)),
    refused("content_ends_with_header", TRUNCATED, packed("t1ce", cut(352), compressed)),
    refused("content_in_header", TRUNCATED, packed("t1ce", cut(200), compressed)),
    refused("content_one_byte_long", "more data", packed("t2", add(b"\0"), compressed)),
    refused("content_zeros_behind", "more data", packed("flair", add(bytes(512)), compressed)),
    refused("content_none", TRUNCATED, packed("flair", cut(0), compressed)),
    refused("content_bomb", "more data", packed("flair", add(bytes(1 << 25)), compressed)),
    graded("plain_named_gz", packed("t1"), note="not gzip"),
    graded("plain_named_nii", packed("t2"), renamed("t2", "x_t2.nii")),
    graded("gzip_named_nii", renamed("t1ce", "x_t1ce.nii"), note="gzip"),
    graded("plain_all", packed("all"), *(renamed(m, f"{m}.nii") for m in ("flair", "t1", "t1ce", "t2"))),
    refused("plain_cut", TRUNCATED, packed("t1", cut(0.7))),
    refused("plain_cut_in_header", TRUNCATED, packed("t2", cut(100)), renamed("t2", "x_t2.nii")),
    refused("plain_garbage_behind", "more data", packed("t1", add(b"garbage"))),
    refused("plain_zeros_behind", "more data", packed("t1", add(bytes(512)))),
    refused("gzip_twice", "twice", packed("t1", compressed, compressed)),
    refused("deflate_with_zlib_header", "not a NIfTI", packed("t1", zlib.compress)),
    refused("deflate_bare", "not a NIfTI", packed("t1", lambda content: zlib.compress(content)[2:-4])),
    refused("bzip2", "bzip2", packed("t1", bz2.compress)),
    refused("xz", "xz", packed("t1ce", lzma.compress)),
    refused("lzma_alone", "not a NIfTI", packed("t1", lambda c: lzma.compress(c, lzma.FORMAT_ALONE))),
    refused("zstd", "zstd", packed("t2", imagecodecs.zstd_encode)),
    refused("lz4", "not a NIfTI", packed("t2", imagecodecs.lz4f_encode)),
    refused("zip", "zip", packed("flair", in_zip)),
    refused("tar", "not a NIfTI|truncated", packed("t1", in_tar)),
    refused("empty", "empty", only(b"")),
    refused("lfs_pointer", "LFS", only(LFS)),
    refused("lfs_pointer_compressed", "LFS", only(compressed(LFS))),
    refused("html", "web page", only(HTML)),
    refused("html_with_mark", "web page", only(b"\xef\xbb\xbf" + HTML)),
    refused("html_compressed", "web page", on("t2", pack=lambda _: compressed(HTML * 20))),
    refused("xml_error", "web page", only(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')),
    refused("json_error", "truncated|not a NIfTI", only(b'{"error": "expired"}')),
    refused("dicom", "DICOM", only(bytes(128) + b"DICM" + bytes(1000))),
    refused("hdf5", "HDF5", only(b"\x89HDF\r\n\x1a\n" + bytes(1000))),
    refused("metaimage", "not a NIfTI|truncated", only(b"ObjectType = Image\nNDims = 3\n" * 30)),
    refused("nrrd", "not a NIfTI", only(b"NRRD0004\ntype: short\n" * 30)),
    refused("mgh", "not a NIfTI", only(struct.pack(">7i", 1, 24, 24, 16, 1, 4, 0) + bytes(1000))),
    refused("noise", "not a NIfTI", only(bytes(range(7, 256)) * 9)),
    refused("zeros", "not a NIfTI", only(bytes(20000))),
]
