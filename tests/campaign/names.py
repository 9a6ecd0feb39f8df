"""40 hostile names of patients through check and predict: no traceback, no id twice, with --no-phi no name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cli.gate import program
from tests.cli.conftest import write_patient

MODEL = Path(__file__).parents[2] / "demo" / "model"  # by `make demo`
NAMES: tuple[bytes, ...] = (
    b"a\x01", b"a\\x01", b"a\x1b[31mred", b"a\x1b]0;title\x07", b"line\nbreak", b"carriage\rreturn", b"tab\there",
    b"a\x7f", b"bell\x07", b"-rf", b"--json", b"-", b"[red]x[/red]", b"[/]", b"[bold", b"\\[x]", b":smile:", b"{x}",
    b"%s%n", b"=1+1", b"=HYPERLINK(1)", b"+1", b"@SUM(A1)", b"x" * 200, b"name with spaces", b" lead", b"trail ",
    b"quote'", b'double"', b"semi;colon", b"comma,comma", b"<script>", b"&amp;", b"$(id)", b"`id`", b"\xff\xfe",
    b"a\xed\xa0\x80", "\u202eltr".encode(), "e\u0301".encode(), "\u00e9".encode(),
)  # fmt: skip


def main() -> int:
    """Run it; print what was found; 0 where all held."""
    if not MODEL.is_dir():
        print(f"needs {MODEL}; run `make demo` first")
        return 1
    with tempfile.TemporaryDirectory() as place:
        faults = [fault for command in _commands(Path(place)) for fault in _faults(Path(place), command)]
    print(f"names: {len(NAMES)} hostile names, {len(faults)} faults")
    for fault in faults:
        print(f"  {fault}")
    return int(bool(faults))


def _commands(home: Path) -> list[list[str]]:
    write_patient(home / "plain", 0, True)
    for name in NAMES:
        folder = os.path.join(os.fsencode(home / "cohort"), name)  # noqa: PTH118 - bytes
        shutil.copytree(os.fsencode(home / "plain"), folder)
    predict = ["predict", str(home / "cohort"), "--model", str(MODEL), "--json"]
    return [
        ["check", str(home / "cohort")],
        ["check", str(home / "cohort"), "--json"],
        ["--no-phi", "check", str(home / "cohort"), "--json"],
        [*predict, "--out", str(home / "results")],
        ["--no-phi", *predict, "--out", str(home / "others")],
    ]


def _faults(home: Path, command: list[str]) -> list[str]:
    done = subprocess.run(program(command), capture_output=True, check=False, cwd=home, timeout=600)
    shown = " ".join(command[:2])
    faults = [f"{shown}: exit code {done.returncode}"] if done.returncode not in (0, 3) else []
    output = done.stdout + done.stderr
    if b"Traceback" in output:
        faults.append(f"{shown}: a traceback")
    if b"\x1b" in output or b"\x07" in output:
        faults.append(f"{shown}: control bytes reach the terminal")
    if "--json" in command and done.returncode in (0, 3):
        patients = [patient["patient"] for patient in json.loads(done.stdout)["patients"]]
        if len(set(patients)) != len(NAMES):
            faults.append(f"{shown}: {len(patients)} patients, {len(set(patients))} ids")
    if "--no-phi" in command:
        faults += [f"{shown}: shows {name!r}" for name in NAMES if len(name) > 5 and name in output]
    return faults


if __name__ == "__main__":
    sys.exit(main())
