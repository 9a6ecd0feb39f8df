"""Every error that a user can fix ends as a sentence and an exit code."""

import pytest

from cli.ending import STOPPED, sentences
from toolkit.errors import CohortError, Interrupted


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CohortError("there is no folder x."), 1, "error: there is no folder x."),
        (Interrupted("stopped after epoch 2."), 130, "interrupted: stopped after epoch 2."),
        (KeyboardInterrupt(), 130, f"interrupted: {STOPPED}"),
        (OSError(28, "No space left on device", "/out/a.csv"), 1, "error: No space left on device: /out/a.csv."),
        (MemoryError(), 1, "error: out of memory; use a smaller batch size or fewer workers."),
    ],
)
def test_an_error_is_a_sentence(error, code, said, capsys):
    with pytest.raises(SystemExit) as end, sentences():
        raise error
    assert end.value.code == code
    assert " ".join(capsys.readouterr().err.split()) == said


def test_other_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), sentences():
        raise ZeroDivisionError
