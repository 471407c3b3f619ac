"""A version's files: the directory, its manifest, and the check before anything is loaded."""
