"""How a command ends that cannot go to its end: one sentence and an exit code for every error that a user can fix."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import gate
from cli.console import detail, fail
from toolkit.errors import INTERRUPTED, GradeError, Interrupted

STOPPED = "the command was stopped by Ctrl-C."


@contextmanager
def sentences() -> Iterator[None]:
    """Errors of what is done inside become sentences.

    Raises:
        SystemExit: with exit code 1, or 130 after a Ctrl-C.
    """
    try:
        yield
    except Interrupted as error:
        _say_where(error)
        fail(str(error), INTERRUPTED)
    except SystemExit as end:  # Typer makes this of a Ctrl-C
        if isinstance(end.__context__, Exception) and isinstance(end.__context__.__cause__, KeyboardInterrupt):
            fail(STOPPED, INTERRUPTED)
        raise
    except KeyboardInterrupt:
        fail(STOPPED, INTERRUPTED)
    except GradeError as error:
        _say_where(error)
        fail(str(error))
    except OSError as error:  # a full disk, a folder that may not be written: nothing in the code can fix these
        _say_where(error)
        fail(f"{error.strerror or error}: {error.filename}." if error.filename else f"{error}.")
    except MemoryError:
        fail("out of memory; use a smaller batch size or fewer workers.")


def _say_where(error: BaseException) -> None:
    """For `--verbose`: the places in the code that an error came through."""
    for place in traceback.extract_tb(error.__traceback__):
        if (file := Path(place.filename)).is_relative_to(gate.HERE):
            detail(f"{file.relative_to(gate.HERE)}, line {place.lineno}, in {place.name}")
