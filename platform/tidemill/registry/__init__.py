"""Versions and their lineage: which there are, where they lie, and which one is champion, candidate or previous."""

from tidemill.registry.protocol import CLEARED_TAG, Alias, RegisteredVersion, Registry

__all__ = ["CLEARED_TAG", "Alias", "RegisteredVersion", "Registry"]
