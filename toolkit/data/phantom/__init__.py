"""A synthetic glioma cohort."""
