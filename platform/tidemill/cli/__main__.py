"""`python -m tidemill.cli`: the same as `tidemill`."""

from tidemill.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
