"""One series: its facts from every file, and the stack that its images make; whatever does not fit is named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from deploy.hospital.study.facts import Header
from deploy.hospital.study.source import Rejected
from deploy.hospital.study.stack import ALIKE, Stack, UnusableSeries, build_stack

MR_IMAGE = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4.2": "MR spectroscopy",
    "1.2.840.10008.5.1.4.1.1.4.3": "colour MR images",
    "1.2.840.10008.5.1.4.1.1.7": "secondary captures",
    "1.2.840.10008.5.1.4.1.1.11.1": "presentation states",
    "1.2.840.10008.5.1.4.1.1.30": "parametric maps",
    "1.2.840.10008.5.1.4.1.1.66": "raw data",
    "1.2.840.10008.5.1.4.1.1.66.1": "a registration",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.104.1": "PDF documents",
}
FEWEST_SLICES = 12
SMALLEST_EXTENT = 100.0  # mm, along each axis: less is no head


@dataclass(frozen=True)
class Series:
    """All files that share one SeriesInstanceUID.

    Attributes:
        uid: SeriesInstanceUID.
        instances: its files, each once, in the order of their instance numbers.
        rejected: copies, and files that contradict each other.
    """

    uid: str
    instances: tuple[Header, ...]
    rejected: tuple[Rejected, ...] = ()

    @property
    def head(self) -> Header:
        """The first file, for what all of them share."""
        return self.instances[0]

    @property
    def number(self) -> int | None:
        """SeriesNumber."""
        return self.head.number

    @property
    def name(self) -> str:
        """How a sentence calls it: by its number, else by the end of its UID."""
        return str(self.number) if self.number is not None else f"...{self.uid[-8:]}"

    @property
    def description(self) -> str:
        """SeriesDescription, else ProtocolName."""
        return self.head.description

    @property
    def count(self) -> int:
        """Images in all files."""
        return sum(len(header.frames) for header in self.instances)

    @cached_property
    def acquired(self) -> str:
        """When the first image was acquired, as digits that sort; empty when not known."""
        return min(
            (frame.acquired for header in self.instances for frame in header.frames if frame.acquired), default=""
        )

    @cached_property
    def _stacked(self) -> Stack | str:
        try:
            return build_stack(self.instances)
        except UnusableSeries as reason:
            return str(reason)

    @property
    def fault(self) -> str:
        """Why the images make no volume; empty when they do."""
        return self._stacked if isinstance(self._stacked, str) else ""

    @property
    def stack(self) -> Stack:
        """The images in order.

        Raises:
            UnusableSeries: they make no volume; see `fault`.
        """
        if isinstance(self._stacked, str):
            raise UnusableSeries(self._stacked)
        return self._stacked

    def varying(self, name: str) -> tuple[float, float] | None:
        """Least and greatest `tr`, `te` or `ti` of the images, ms; None where no image has one."""
        values = [
            value for header in self.instances for frame in header.frames if (value := getattr(frame, name)) is not None
        ]
        return (min(values), max(values)) if values else None


def not_an_image(series: Series) -> str:
    """What a series is when it is no MR image; empty when it is one."""
    head = series.head
    if head.sop_class not in MR_IMAGE:
        what = _CLASSES.get(head.sop_class, f"objects of class {head.sop_class or 'unknown'}")
        if head.sop_class.startswith("1.2.840.10008.5.1.4.1.1.88."):
            what = "a report"
        return f"holds {what}, modality {head.modality or 'unknown'}, not MR images"
    if head.modality != "MR":
        return f"has the modality {head.modality or 'unknown'}, not MR"
    return ""


def group(headers: Iterable[Header]) -> tuple[Series, ...]:
    """Files as series, by number, then UID; a file that is there twice counts once.

    Args:
        headers: of one study. Of files that carry the same SOPInstanceUID the pixels are read too.

    Raises:
        RuntimeUnavailable: the pixels of two such files have to be decoded, and a codec is missing.
    """
    by_series: dict[str, list[Header]] = {}
    for header in headers:
        by_series.setdefault(header.series, []).append(header)
    found = []
    for uid, members in by_series.items():
        members.sort(key=lambda header: (header.instance is None, header.instance or 0, header.sop, header.source.name))
        kept, rejected = _once(members)
        found.append(Series(uid, tuple(kept), tuple(rejected)))
    return tuple(sorted(found, key=lambda one: (one.number is None, one.number or 0, one.uid)))


def _once(members: Sequence[Header]) -> tuple[list[Header], list[Rejected]]:
    kept: dict[str, Header] = {}
    rejected = []
    for header in members:
        first = kept.get(header.sop)
        if first is None:
            kept[header.sop] = header
        elif _is_copy(header, first):
            rejected.append(Rejected(header.source, f"is a copy of {first.source.name}"))
        else:
            kept[f"{header.sop} {header.source.name}"] = header  # the stack is refused, with the name of both
    return list(kept.values()), rejected


def _is_copy(header: Header, first: Header) -> bool:
    """Whether two files of one SOPInstanceUID are the same image; if not, it must not be their names that decide."""
    if any(getattr(header, what) != getattr(first, what) for what in (*ALIKE, "frames", "instance")):
        return False
    from deploy.hospital.study.pixels import same_pixels  # needs pydicom, which only duplicates ask for here

    return same_pixels(header, first)
