"""From patient folders to a calibrated, trained network."""
