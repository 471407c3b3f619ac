"""What people and systems say of predictions: read and refused, taken in by hand, file and HTTP, weighed, asked for."""
