"""A model folder: what it holds, what may be said of it, who signed it."""
