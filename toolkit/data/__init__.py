"""Patients, files and scans: everything between a folder on disk and the array that the network sees."""
