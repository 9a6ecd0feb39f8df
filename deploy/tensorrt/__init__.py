"""TensorRT engines: built, kept, found again."""
