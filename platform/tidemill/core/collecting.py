"""How often Python searches for garbage that holds itself, in workers that make many objects and hardly any of it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rare_collections"]

_COLLECT_AFTER = 100_000
"""New objects between two searches: a batch makes tens of thousands. At Python's 700 half of the time of reading what
outcomes' index answers went into them."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Search rarely within the block, and not at all among what is there when it begins (modules, above all)."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
