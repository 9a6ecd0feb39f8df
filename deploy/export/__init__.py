"""From a run to a model folder."""
