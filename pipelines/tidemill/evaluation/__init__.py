"""Gates: what a candidate must prove before any traffic."""
