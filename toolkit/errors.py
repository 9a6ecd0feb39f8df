"""Errors that a user can fix; the command line alone turns them into a sentence and an exit code."""

INTERRUPTED = 130  # exit code after a Ctrl-C, as a shell has it


class GradeError(Exception):
    """Something the user can fix. Its text is one sentence: what is wrong, the value, how to fix it."""


class SettingsError(GradeError):
    """A setting is unknown, out of range or contradicts another."""


class CohortError(GradeError):
    """A cohort cannot be used: missing, empty, without labels, of one class only."""


class PatientRefused(GradeError):
    """One patient cannot be graded; the others still are. The text is the reason written to the results."""


class RunError(GradeError):
    """A training run cannot be started, continued or read."""


class Interrupted(RunError):
    """The user stopped the work; the text says what is kept, and how to continue."""


class ModelError(GradeError):
    """A model folder is missing, incomplete, altered, or fails its own test."""


class RuntimeUnavailable(GradeError):
    """The runtime or device asked for is not there; nothing else is taken in its place."""


class OutOfMemory(RuntimeUnavailable):
    """The device's memory does not suffice for a batch of this size; a smaller one may do."""
