"""`python -m tests.campaign NAME...`: attacks that take longer than the suite may; exit code 0 where all held."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def main() -> int:
    known = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
    names = sys.argv[1:]
    if not names or set(names) - set(known):
        print(f"usage: python -m tests.campaign NAME...; known: {', '.join(known)}")
        return 2
    return max([import_module(f"tests.campaign.{name}").main() for name in names])


if __name__ == "__main__":
    sys.exit(main())
