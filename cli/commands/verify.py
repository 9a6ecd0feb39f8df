"""`grade verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, NotBefore, PublicKey, Revoked

EXAMPLES = (
    "grade verify model",
    "grade verify model --require-signature hospital.pem.pub",
    "grade verify --audit results/audit.jsonl",
)


def command(
    model: Annotated[Path | None, typer.Argument(help="A model folder.")] = None,
    audit: Annotated[Path | None, typer.Option(help="An audit.jsonl of `grade predict`.")] = None,
    signature: PublicKey = None,
    not_before: NotBefore = None,
    revoked: Revoked = None,
    as_json: AsJson = False,
) -> None:
    """Check a model (hashes, parity record, self-test, signature) or an audit file. Exit code 1: something is wrong."""
    from cli.console import fail, note, say, show_json, table
    from cli.options import signed_by
    from deploy.results.audit import verify_audit, witnesses
    from deploy.verify import verify_model

    if model is None and audit is None:
        raise typer.BadParameter("name a model folder, or a file with --audit.")
    facts: dict[str, object] = {}
    wrong: list[str] = []
    if audit is not None:
        chain = verify_audit(audit)
        say(f"{audit}: {chain.lines} lines, none altered, the last with hash {chain.last}")
        beside = witnesses(audit)
        if not beside:
            note("the results are not next to it, so lines that are missing at its end would not show.")
        facts["audit"] = {"file": str(audit), "lines": chain.lines, "last": chain.last, "checked_against": beside}
    if model is not None:
        checks = list(verify_model(model, signed_by(signature, not_before, revoked)))
        rows = [(check.name, "passed" if check.passed else "FAILED", check.sentence) for check in checks]
        facts["model"] = {
            "folder": str(model),
            "checks": [{"name": c.name, "passed": c.passed, "sentence": c.sentence} for c in checks],
        }
        if not as_json:
            table(f"Model {model}", ("", "", ""), rows)
        wrong = [check.name for check in checks if not check.passed]
    if as_json:
        show_json(facts | {"passed": not wrong})
    if wrong:
        fail(f"model {model} is not what was exported: {', '.join(wrong)}.")
