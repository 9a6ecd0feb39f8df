"""What a hospital needs around `grade`: DICOM studies in, BraTS space, results out."""
