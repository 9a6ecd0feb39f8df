"""What a hospital needs around the model: DICOM studies in, answers as DICOM out, a service."""
