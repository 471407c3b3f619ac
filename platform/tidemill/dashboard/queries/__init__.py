"""What the pages show, as plain values: made of the same queries as the command line, and known without a browser."""

__all__: list[str] = []
