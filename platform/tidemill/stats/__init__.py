"""E-processes, confidence sequences and sketches: pure functions of numbers."""
