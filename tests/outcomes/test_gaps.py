"""Loss of the prediction log."""

from hypothesis import given
from hypothesis import strategies as st

from tidemill.outcomes.gaps import Gaps


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 40), st.integers(0, 4)), max_size=60))
def test_lost_is_what_is_missing_below_the_largest_number_of_each_boot(seen: list[tuple[str, int, int]]) -> None:
    gaps = Gaps()
    numbers: dict[str, set[int]] = {}
    for boot, first, more in seen:
        gaps.see(boot, first, first + more)
        numbers.setdefault(boot, set()).update(range(first, first + more + 1))
        assert gaps.lost == sum(max(known) + 1 - len(known) for known in numbers.values())


def test_a_boot_that_starts_above_0_lost_its_beginning() -> None:
    gaps = Gaps()
    gaps.see("a", 3)
    assert gaps.lost == 3


def test_a_repeated_number_hides_no_loss() -> None:
    gaps = Gaps()
    for number in (0, 0, 0, 2):
        gaps.see("a", number)
    assert gaps.lost == 1
