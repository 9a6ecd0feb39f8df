"""Several processes and GPUs."""
