"""A model at one site: its calibration updated, how many patients that takes, and changes noticed."""
