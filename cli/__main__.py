"""`python -m cli` is `grade`."""

from cli.main import run

run()
