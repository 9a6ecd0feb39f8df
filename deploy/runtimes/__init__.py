"""One module for each runtime, and the one that opens them."""
