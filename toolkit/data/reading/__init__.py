"""One patient's files, read and checked."""

from toolkit.environment import without

with without("pydicom"):  # half a second of each prediction's start; nothing here reads DICOM through nibabel
    import nibabel  # noqa: F401
