"""One patient's files, read and checked."""
