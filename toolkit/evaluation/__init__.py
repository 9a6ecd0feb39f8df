"""Metrics, calibration, stability and reports."""
