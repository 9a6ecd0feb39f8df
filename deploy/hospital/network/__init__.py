"""DICOM over the network: receive, send, ask; DIMSE and DICOMweb."""
