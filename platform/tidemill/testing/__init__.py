"""Doubles of the seams, public and documented: the same conformance suites run over them and the real parts."""

from tidemill.testing.waiting import eventually

__all__ = ["eventually"]
