"""Patients read by several workers at once: threads, or processes where threads wait for Python's lock."""
