"""Which versions there are, which of them is champion, and where each came from."""
