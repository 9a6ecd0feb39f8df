"""`grade serve`: studies received, answered and sent back, each once, whatever dies in between."""
