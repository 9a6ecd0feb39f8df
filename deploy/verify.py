"""Is a model folder what was exported? Everything that can be checked without a patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from deploy.model.folder import ENGINES, MANIFEST, ONNX, SEAL, SIGNATURE, Model, open_model
from deploy.predict.verdict import Judge
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from deploy.selftest import LIMITS, run_selftest
from deploy.tensorrt.engine_files import EngineRecord, read_plan, records
from toolkit.errors import GradeError, ModelError

_OF_ENGINES = {".timings", ".jit"}  # what a build and a first run leave next to an engine


class Check(NamedTuple):
    """One finding; `sentence` says what is wrong, or what was found."""

    name: str
    passed: bool
    sentence: str


def verify_model(folder: Path, signed: Callable[[Model], None] | None) -> Iterator[Check]:
    """Check manifest, files, graphs, limits, engines, parity record, self-test and signature, one after the other.

    Whatever prediction opens is opened here, too.

    Args:
        folder: the model.
        signed: raises GradeError where the signature is not the wanted one; None: no signature is wanted.

    Yields:
        Each finding as it is made. Without a readable manifest there is one only.
    """
    try:
        model = open_model(folder)
    except GradeError as error:
        yield Check(MANIFEST, False, str(error))
        return
    yield Check(MANIFEST, True, f"fingerprint {model.fingerprint}")
    intact = True
    for name in model.manifest.files:
        check = _checked(name, partial(_refuse_altered, model, name), "as exported")
        intact &= check.passed
        yield check
    yield _checked("folder", partial(_refuse_strangers, model), "no other files")
    if (model.folder / ENGINES).exists():
        well = "each with its record; engines are not signed: --require-signature uses this user's own alone"
        yield _checked(ENGINES, partial(_refuse_engines, model.folder / ENGINES), well)
    yield _checked("parity", partial(_refuse_parity, model), "every runtime decided like the trained network")
    if intact:  # a graph that is not the exported one is not run
        yield _checked("limits", partial(Judge, model), "of the verdict")
        yield _checked("self-test", partial(_selftest, model), "answers as at export")
    if signed is not None:
        yield _checked(SIGNATURE, partial(signed, model), "by the owner of the key")


def _checked(name: str, look: Callable[[], object], well: str) -> Check:
    try:
        look()
    except GradeError as error:
        return Check(name, False, str(error))
    return Check(name, True, well)


def _refuse_altered(model: Model, name: str) -> None:
    precision = next((precision for precision, file in ONNX.items() if file == name), None)
    if precision:
        model.onnx(precision)
    else:
        model.read(name)


def _refuse_strangers(model: Model) -> None:
    known = {*model.manifest.files, MANIFEST, SEAL, SIGNATURE, ENGINES}
    strange = sorted(path.name for path in model.folder.iterdir() if path.name not in known)
    if strange:
        raise ModelError(f"{model.folder} holds what export did not write: {_some(strange)}; delete it.")


def _refuse_engines(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; delete it.")
    ours = {".lock"}
    for path, record in records(folder):
        if isinstance(record, EngineRecord) and read_plan(path.with_suffix(".plan"), record) is not None:
            ours |= {path.name, path.with_suffix(".plan").name}
    strange = sorted(path.name for path in folder.iterdir() if path.name not in ours and path.suffix not in _OF_ENGINES)
    if strange:
        raise ModelError(f"{folder} holds files that are no engine with its record: {_some(strange)}; delete them.")


def _refuse_parity(model: Model) -> None:
    report = model.manifest.parity
    if not report.comparisons:
        raise ModelError("the manifest has no record of the parity gate; export again.")
    for found in report.comparisons:
        if found.difference > found.limit or found.limit > max(LIMITS.values()):
            raise ModelError(
                f"{found.runtime} differed by {found.difference:g}, more than {found.limit:g}; export again."
            )


def _selftest(model: Model) -> None:
    run_selftest(model, open_runtime(model, Choice("onnx", "cpu", "fp32")))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
