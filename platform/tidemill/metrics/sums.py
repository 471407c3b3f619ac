"""Exact sums: what each measure of quality is computed from.

A cell of a quality table is one `Sums`: whole numbers by key, added up over outcomes. Whole numbers add exactly, so
that any order, any split and any correction (take the old outcome out, put the new one in) give the same cell as
counting anew: sums are a commutative group, and this one module is all that this rests on.

A float joins as a whole number of 2^-120 (`exact`). Every float of at least 2^-67 (about 7e-21) is one, so its sum
is the true sum, and a mean is off by the last division alone.
"""

from collections.abc import Iterable, Iterator

__all__ = ["Key", "Sums", "Terms", "exact"]

Key = tuple[str | int, ...]
"""What is summed: the measure's name, then class, bin or the like."""

Terms = list[tuple[Key, int]]
"""What one outcome adds."""

_UNIT = 1 << 120
_SCALE = float(_UNIT)


def exact(value: float) -> int:
    """A float as a whole number of 2^-120, exactly if it is at least 2^-67; finite and below 1e200 in size."""
    return int(value * _SCALE)


class Sums:
    """Whole numbers by key; keys whose number is 0 are not there, so that equal sums are equal objects."""

    __slots__ = ("_by_key",)

    def __init__(self, terms: Iterable[tuple[Key, int]] = ()) -> None:
        self._by_key: dict[Key, int] = {}
        self.add(terms)

    def add(self, terms: Iterable[tuple[Key, int]], sign: int = 1) -> None:
        """Take terms in, or with `sign` -1 out again."""
        held = self._by_key
        for key, amount in terms:
            now = held.get(key, 0) + sign * amount
            if now:
                held[key] = now
            else:
                held.pop(key, None)

    def merge(self, other: "Sums", sign: int = 1) -> None:
        """Take all of another in, or out again."""
        self.add(other.items(), sign)

    def __add__(self, other: "Sums") -> "Sums":
        """Both together."""
        return _both(self, other, 1)

    def __sub__(self, other: "Sums") -> "Sums":
        """This without `other`, which must have been added before."""
        return _both(self, other, -1)

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are equal."""
        return isinstance(other, Sums) and self._by_key == other._by_key

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._by_key)

    def items(self) -> Iterator[tuple[Key, int]]:
        """All keys with their numbers."""
        return iter(self._by_key.items())

    def count(self, *key: str | int) -> int:
        """The number at a key; 0 where there is none."""
        return self._by_key.get(key, 0)

    def total(self, *key: str | int) -> float:
        """The sum of the floats at a key, rounded once."""
        return self.count(*key) / _UNIT

    def mean(self, total: Key, count: Key) -> float | None:
        """The sum of floats at `total` over the number at `count`, rounded once; None where there is none."""
        number = self.count(*count)
        return self.count(*total) / (number * _UNIT) if number else None


def _both(first: Sums, second: Sums, sign: int) -> Sums:
    made = Sums(first.items())
    made.merge(second, sign)
    return made
