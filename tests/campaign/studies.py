"""`python -m tests.campaign studies`: 1,000 DICOM studies damaged at random, each read as `grade ingest` reads it.

Every one has to end in four volumes or in a refusal: no other exception, no hang, no wrong label, at most 2 GB.
"""

from __future__ import annotations

import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pydicom

from deploy.hospital.study.choose import StudyRefused, choose_series
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.study import find_studies
from deploy.hospital.study.volume_reader import read_volume
from tests.deploy.hospital.heads import head
from tests.deploy.hospital.writer import LOOKS, SYNTAXES, Paper, save, write_study
from toolkit.data.patients import MODALITIES
from toolkit.errors import CohortError, PatientRefused

COUNT, SECONDS, MEMORY = 1000, 60, 2 << 20  # studies, for each, kB
TAGS = (
    "SeriesDescription", "ScanningSequence", "SequenceVariant", "RepetitionTime", "EchoTime", "InversionTime",
    "ContrastBolusAgent", "AcquisitionTime", "SeriesNumber", "MRAcquisitionType", "RescaleSlope", "ImageType",
    "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "Rows", "Modality", "PatientID", "SOPClassUID",
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ContrastBolusAgentSequence", "BitsAllocated",
)  # fmt: skip


@dataclass
class Damaged:
    """A study on disk whose files are known.

    Attributes:
        folder: where it is.
        truth: file -> modality it was written as.
        done: what was done to it.
    """

    folder: Path
    truth: dict[Path, str]
    done: list[str] = field(default_factory=list)


def write(folder: Path, random: Random) -> Damaged:
    """A sound study of a random vendor, coding and kind of file."""
    vendor, enhanced = random.choice(list(LOOKS)), random.random() < 0.4
    volumes = {name: head(name, (16, 18, 13), (9, 9, 9)) for name in MODALITIES}
    paper = Paper(enhanced=enhanced, syntax=random.choice(SYNTAXES), seed=str(random.random()))
    write_study(folder, volumes, vendor, paper=paper)
    names = {f"{look.number:04d}": modality for modality, look in LOOKS[vendor].items()}
    return Damaged(folder, {file: names[file.parent.name] for file in sorted(folder.rglob("*.dcm"))}, [vendor])


def flip(study: Damaged, random: Random) -> None:
    """Some bits of one file, mostly of its header."""
    file = random.choice(list(study.truth))
    content = bytearray(file.read_bytes())
    end = min(len(content), 2500) if random.random() < 0.8 else len(content)
    for _ in range(random.randint(1, 8)):
        content[random.randrange(end)] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def truncate(study: Damaged, random: Random) -> None:
    file = random.choice(list(study.truth))
    content = file.read_bytes()
    file.write_bytes(content[: random.randrange(len(content))])


def blank(study: Damaged, random: Random) -> None:
    """A stretch of zeros or of noise."""
    file = random.choice(list(study.truth))
    content = bytearray(file.read_bytes())
    at, length = random.randrange(len(content)), random.randint(1, 200)
    content[at : at + length] = bytes(length) if random.random() < 0.5 else random.randbytes(length)
    file.write_bytes(content)


def remove(study: Damaged, random: Random) -> None:
    for file in random.sample(list(study.truth), min(random.randint(1, 4), len(study.truth) - 1)):
        file.unlink()
        del study.truth[file]


def duplicate(study: Damaged, random: Random) -> None:
    file = random.choice(list(study.truth))
    copy = file.with_name(f"copy{random.randrange(1000)}.dcm")
    shutil.copy(file, copy)
    study.truth[copy] = study.truth[file]


def swap_files(study: Damaged, random: Random) -> None:
    """Two files change names, perhaps between two series' folders."""
    one, other = random.choices(list(study.truth), k=2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    study.truth[one], study.truth[other] = study.truth[other], study.truth[one]


def drop_tag(study: Damaged, random: Random) -> None:
    """One tag of one file, or of a whole series."""
    modality, tag = random.choice(MODALITIES), random.choice(TAGS)
    files = [file for file, name in study.truth.items() if name == modality]
    for file in files if random.random() < 0.7 else files[:1]:
        _edit(file, lambda ds: ds.pop(tag, None))
    study.done.append(f"{tag} of {modality}")


def swap_tag(study: Damaged, random: Random) -> None:
    """One tag changes its value between two whole series."""
    pair, tag = random.sample(MODALITIES, 2), random.choice(TAGS[:12])
    files = [[file for file, name in study.truth.items() if name == modality] for modality in pair]
    if not all(files):
        return
    values = [_value(members[0], tag) for members in files]
    for members, value in zip(files, reversed(values), strict=True):
        for file in members:
            _edit(file, lambda ds, value=value: ds.pop(tag, None) if value is None else setattr(ds, tag, value))
    study.done.append(f"{tag} of {pair[0]} and {pair[1]}")


DAMAGES = (flip, flip, truncate, blank, remove, duplicate, swap_files, drop_tag, drop_tag, swap_tag)


def _value(file: Path, tag: str) -> object:
    try:
        return pydicom.dcmread(file, stop_before_pixels=True).get(tag)
    except Exception:  # noqa: BLE001 - damaged before: then it has no value to give
        return None


def _edit(file: Path, change: object) -> None:
    try:
        ds = pydicom.dcmread(file)
        change(ds)  # type: ignore[operator]
        save(ds, file)
    except Exception:  # noqa: BLE001 - damaged before, so that it cannot be written again
        return


def outcome(study: Damaged) -> str:
    """How the study ended: `read`, `refused`, or what must not be."""
    try:
        studies = find_studies(study.folder)
    except CohortError:
        return "nothing to read"
    ends = []
    for one in studies:
        try:
            chosen = choose_series(one, SeriesRules()).chosen
        except StudyRefused:
            ends.append("refused")
            continue
        for modality, series in chosen.items():
            if {study.truth[header.source.path] for header in series.instances} != {modality}:
                return "WRONG LABEL"
        try:
            for series in chosen.values():
                read_volume(series)
        except PatientRefused:
            ends.append("refused by its pixels")
        else:
            ends.append("read")
    return max(ends, key=("refused", "refused by its pixels", "read").index)


def attack(seed: int) -> tuple[str, str]:
    """One study: its end, and what was done to it."""
    random = Random(seed)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = write(Path(name), random)
        for damage in random.choices(DAMAGES, k=random.randint(1, 3)):
            if study.truth:
                damage(study, random)
                study.done.append(damage.__name__)
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
        try:
            end = outcome(study)
        except TimeoutError:
            end = "HANG"
        except Exception as error:  # noqa: BLE001 - the campaign's very question
            end = f"EXCEPTION {type(error).__name__}: {error}"[:200]
        finally:
            signal.alarm(0)
    return end, ", ".join(study.done)


def _too_long(*_: object) -> None:
    raise TimeoutError


def run(seeds: range) -> tuple[Counter[str], list[str]]:
    """Counts of the ends, and a line for each study that must not have ended so."""
    ends: Counter[str] = Counter()
    bad = []
    for seed in seeds:
        end, done = attack(seed)
        ends[end] += 1
        if end.startswith(("WRONG", "HANG", "EXCEPTION")):
            bad.append(f"seed {seed} ({done}): {end}")
    return ends, bad


def main() -> int:
    start = time.perf_counter()
    ends, bad = run(range(COUNT))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in bad:
        print(line)
    print(f"{COUNT} studies in {time.perf_counter() - start:.0f} s, at most {memory / 2**20:.2f} GB")
    for end, count in ends.most_common():
        print(f"{count:5d} {end}")
    return 1 if bad or memory > MEMORY else 0


if __name__ == "__main__":
    sys.exit(main())
