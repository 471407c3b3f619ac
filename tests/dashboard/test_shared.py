"""One value for all who look."""

import asyncio
import threading
from collections.abc import Iterator

from tidemill.core.errors import Unavailable
from tidemill.dashboard.shared import Shared, SharedByKey
from tidemill.testing.clock import ManualClock


def test_a_hundred_who_look_at_once_cost_one_reading() -> None:
    begun, go = [], threading.Event()

    def read() -> int:
        begun.append(1)
        go.wait(10)
        return 7

    async def look() -> list[int]:
        shared = Shared(read, ManualClock(), 1.0)
        looking = [asyncio.create_task(shared.get()) for _ in range(100)]
        await asyncio.sleep(0)
        go.set()
        return [seen.loaded for seen in await asyncio.gather(*looking)]

    assert asyncio.run(look()) == [7] * 100
    assert len(begun) == 1


def test_who_comes_later_sees_the_last_value_while_it_is_read_again() -> None:
    values, clock = iter([1, 2]), ManualClock()

    async def look() -> list[int]:
        shared = Shared(lambda: next(values), clock, 1.0)
        seen = [(await shared.get()).loaded]
        clock.advance(0.5)
        seen.append((await shared.get()).loaded)
        clock.advance(1.0)
        seen.append((await shared.get()).loaded)  # starts the next reading
        while (await shared.get()).loaded == 1:
            await asyncio.sleep(0)
        return [*seen, (await shared.get()).loaded]

    assert asyncio.run(look()) == [1, 1, 1, 2]


def test_what_was_read_long_ago_is_shown_to_nobody() -> None:
    values, clock = iter([1, 2]), ManualClock()

    async def look() -> list[int]:
        shared = Shared(lambda: next(values), clock, 1.0)
        seen = [(await shared.get()).loaded]
        clock.advance(11)
        return [*seen, (await shared.get()).loaded]

    assert asyncio.run(look()) == [1, 2]


def test_an_error_stands_beside_the_last_value() -> None:
    outcomes: Iterator[int | Exception] = iter([3, Unavailable("the lake does not answer")])
    clock = ManualClock()

    def read() -> int:
        found = next(outcomes)
        if isinstance(found, Exception):
            raise found
        return found

    async def look() -> tuple[int | None, str]:
        shared = Shared(read, clock, 1.0)
        await shared.get()
        shared.forget()
        while (seen := await shared.get()).error is None:
            await asyncio.sleep(0)
        return seen.value, seen.error.message

    assert asyncio.run(look()) == (3, "the lake does not answer")


def test_a_bug_in_a_query_is_told_and_does_not_end_the_page() -> None:
    async def look() -> str:
        seen = await Shared(lambda: 1 // 0, ManualClock(), 1.0).get()
        assert seen.error is not None
        return seen.error.message

    assert "ZeroDivisionError" in asyncio.run(look())


def test_of_very_many_keys_the_ones_asked_for_first_are_forgotten() -> None:
    shared = SharedByKey[int, int](lambda key: key, ManualClock(), 1.0)
    first = shared.of(0)
    assert shared.of(0) is first
    for key in range(1, 300):
        shared.of(key)
    assert shared.of(0) is not first
