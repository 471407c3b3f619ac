"""Loss of the prediction log."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.records import ServingCount, encode
from tidemill.outcomes.gaps import Gaps, read_count


def word(
    boot: str, logged: int, settled: int | None = None, *, ended: bool = False, capacity: int = 50
) -> ServingCount:
    return ServingCount(
        boot=boot,
        answered=2 * logged,
        logged=logged,
        settled=logged if settled is None else settled,
        capacity=capacity,
        every_ms=1000,
        ended=ended,
    )


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


def test_what_a_process_says_is_settled_and_was_not_seen_is_lost() -> None:
    gaps = Gaps()
    gaps.see("a", 0, 3)
    gaps.hear(word("a", 9, settled=6), 0)
    assert gaps.lost == 2  # 4 and 5; 6, 7 and 8 may be under way
    gaps.see("a", 7)
    assert gaps.lost == 3
    gaps.hear(word("a", 9, ended=True), 0)
    assert gaps.lost == 4


def test_a_silent_process_may_have_lost_what_may_wait_until_its_end_is_told() -> None:
    gaps = Gaps()
    gaps.hear(word("a", 0), 1000)
    gaps.hear(word("b", 0, capacity=7), 1000)
    gaps.see("a", 0, 3, at_ms=5000)
    assert [gaps.maybe_lost(at) for at in (4000, 4001, 8000, 8001)] == [0, 7, 7, 57]
    gaps.hear(word("a", 9, ended=True), 20_000)
    assert (gaps.maybe_lost(30_000), gaps.lost) == (7, 5)
    gaps.hear(word("b", 0), 29_000)  # it was cut off, and is back
    assert gaps.maybe_lost(30_000) == 0


def test_a_process_that_never_said_a_word_is_bounded_by_nothing() -> None:
    gaps = Gaps()
    gaps.see("a", 0, 3, at_ms=5)
    assert gaps.maybe_lost(1 << 60) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]), st.integers(0, 30), st.integers(0, 30), st.booleans(), st.integers(0, 9)
        ),
        max_size=20,
    ),
    st.randoms(),
)
def test_order_and_repetition_change_nothing(said: list[tuple[str, int, int, bool, int]], random: Random) -> None:
    def told(order: list[tuple[str, int, int, bool, int]]) -> tuple[int, int, int]:
        gaps = Gaps()
        for boot, number, settled, ended, at in order:
            gaps.see(boot, number, at_ms=at, answered=number)
            gaps.hear(word(boot, 30, settled, ended=ended), at)
        return gaps.lost, gaps.answered, gaps.maybe_lost(3005)

    other = [*said, *said]
    random.shuffle(other)
    assert told(said) == told(other)


def test_a_count_is_told_from_what_else_is_on_the_topic() -> None:
    assert read_count(encode(word("a", 3))) == word("a", 3)
    assert read_count(b"{") is None
    assert read_count(b"\xff") is None
    assert read_count(None) is None
