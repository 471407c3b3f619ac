"""The worker: poll, validate, lake, online rows, sketches."""
