"""An answer as DICOM objects of the patient's study."""
