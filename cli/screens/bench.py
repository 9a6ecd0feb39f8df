"""What a benchmark looks like in the terminal."""

from __future__ import annotations

from cli.console import note, say, table
from deploy.bench import Bench


def show_bench(found: Bench) -> None:
    """Speeds, what else a patient costs, and the runtime that `auto` takes from now on."""
    rows = [
        (
            f"{measured.runtime} {measured.precision} {measured.device}",
            str(speed.batch),
            f"{speed.median:.2f}",
            f"{speed.p95:.2f}",
            f"{speed.median / speed.batch:.2f}",
            f"{speed.patients_per_second:.1f}",
            f"{speed.first:.0f}",
            "passed" if measured.parity == "passed" else "failed",
        )
        for measured in found.measured
        for speed in measured.speeds
    ]
    columns = ("runtime", "batch", "ms", "ms, 95 %", "ms/patient", "patients/s", "first, ms", "parity")
    table("Inference, transfers counted in, warm-up apart", columns, rows)
    stages = found.stages
    costs = (
        ("read", stages.read),
        ("preprocess", stages.preprocess),
        ("copy", stages.copying),
        ("decide", stages.decide),
    )
    table(
        "In addition, ms a patient on one thread",
        ("", ""),
        [(name, "name a patient folder" if value is None else f"{value:.2f}") for name, value in costs],
    )
    for name, reason in found.missing.items():
        note(f"{name} was not measured: {reason}")
    for measured in found.measured:
        if measured.parity != "passed":
            note(
                f"{measured.runtime} {measured.precision} {measured.device} must not grade patients: {measured.parity}"
            )
    if found.fastest:
        say(f"Fastest that answers right: {found.fastest}; --runtime auto takes it for this model on this machine.")
    else:
        note("no runtime answers right; check drivers and libraries, or export again.")
