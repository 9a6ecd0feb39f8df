"""Run folders: settings, history, checkpoints, outcome."""
