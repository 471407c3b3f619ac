"""What every index of outcomes does, in memory and in Redis."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import redis

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.labels.parse import KnownLabel, event_key
from tidemill.outcomes.join import Heard, Indexed
from tidemill.outcomes.state import OutcomeState, RedisState, StateLost
from tidemill.testing.outcome_stores import MemoryIndex

Made = tuple[OutcomeState, Callable[[], None]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def made(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[Made]:
    """An index that is whole, and what loses it."""
    if request.param == "memory":
        index = MemoryIndex()
        index.begin_rebuild()
        index.finish_rebuild()
        yield index, index.lose
        return
    url = request.getfixturevalue("redis_url")
    state = RedisState(url, topic_prefix, ttl_s=60)
    state.begin_rebuild()
    state.finish_rebuild()
    client = redis.Redis.from_url(url)

    def lose() -> None:
        for key in client.scan_iter(f"{{{topic_prefix}:*"):
            client.delete(key)

    yield state, lose
    client.close()
    state.close()


def prediction(of: str, event: str | None = "e", offset: int = 0) -> Indexed:
    return Indexed(of, "v", "a", event, None, {"class": "ok"}, 1, 2, 3, 4, 0, offset)


def label(n: int) -> KnownLabel:
    return KnownLabel(f"c/t/0@{n}", {"defect": "ok"}, "me", 100)


KEY = event_key("a", "e")


def test_whichever_side_comes_second_finds_the_first(made: Made) -> None:
    state, _ = made
    assert state.know([(KEY, label(10)), (KEY, label(9))]) == [[], []]
    assert state.index([prediction("p"), prediction("q", None)]) == [[label(9), label(10)], []]
    assert state.know([(KEY, label(11))]) == [[("p", 0)]]
    assert state.index([prediction("r")]) == [[label(9), label(10), label(11)]]


def test_what_is_written_twice_is_there_once(made: Made) -> None:
    state, _ = made
    for _ in range(2):
        state.index([prediction("p")])
        state.know([(KEY, label(1))])
        list(state.hear([("p", Heard("c/t/0@1", {}, "", 5, 3, 0))], 0))
    assert state.know([(KEY, label(1))]) == [[("p", 0)]]
    assert list(state.recall(["p"])) == [(prediction("p"), [Heard("c/t/0@1", {}, "", 5, 3, 0)])]


def test_what_a_text_or_a_list_repeats_of_another_label_is_no_such_label(made: Made) -> None:
    state, _ = made
    other = label(2)
    text, parts = msgspec.json.encode(other).decode() + "\n", msgspec.to_builtins(other)
    saying = KnownLabel("c/t/0@1", {"defect": text, "parts": [parts, [parts]]}, text, 100)
    state.know([(KEY, saying), (KEY, other)])
    assert state.index([prediction("p")]) == [[saying, other]]


def test_of_several_records_of_a_prediction_the_first_in_the_log_counts(made: Made) -> None:
    state, _ = made
    state.index([prediction("p", offset=10)])
    state.index([prediction("p", offset=9)])
    assert list(state.recall(["p", "unknown"])) == [(prediction("p", offset=9), []), (None, [])]


def test_heard_labels_come_with_their_prediction(made: Made) -> None:
    state, _ = made
    first, second = Heard("c/t/0@1", {}, "", 5, 3, 0), Heard("c/t/0@2", {}, "", 6, 4, 0)
    assert dict(state.hear([("p", first)], 0)) == {"p": (None, [first])}
    state.index([prediction("p")])
    known = dict(state.hear([("p", second), ("q", first)], 1))
    assert known["p"][0] == prediction("p")
    assert sorted(known["p"][1], key=lambda heard: heard.offset) == [first, second]


def test_a_prediction_that_is_restored_is_not_found_by_its_event(made: Made) -> None:
    state, _ = made
    state.restore([prediction("p")])
    assert list(state.recall(["p"])) == [(prediction("p"), [])]
    assert state.know([(KEY, label(1))]) == [[]]


def test_of_predictions_that_are_not_judged_nothing_is_told(made: Made) -> None:
    state, _ = made
    state.index([prediction("p", offset=10), prediction("q", offset=11)])
    heard = [("p", Heard("c/t/0@1", {}, "", 5, 3, 0)), ("q", Heard("c/t/0@2", {}, "", 6, 3, 0, 1))]
    assert dict(state.hear(heard, 10)) == {}
    assert dict(state.hear(heard, 11)) == {"p": (prediction("p", offset=10), [heard[0][1]])}
    state.index([prediction("q", offset=9)])
    assert dict(state.hear(heard, 10)) == {"q": (prediction("q", offset=9), [heard[1][1]])}


def test_labels_of_one_record_are_kept_apart(made: Made) -> None:
    state, _ = made
    labels = [Heard(f"c/t/0@{n}", {}, "", 5, 3, 0, n) for n in range(600)]
    ((of, (_, known)),) = state.hear([("p", label) for label in labels], 0)
    assert of == "p"
    assert sorted(known, key=lambda heard: heard.place) == labels


def test_a_loss_is_noticed_by_every_call_until_it_is_rebuilt(made: Made) -> None:
    state, lose = made
    assert state.is_whole()
    lose()
    for call in (
        lambda: state.index([prediction("p")]),
        lambda: state.know([(KEY, label(1))]),
        lambda: list(state.recall(["p"])),
        lambda: list(state.hear([], 0)),
    ):
        with pytest.raises(StateLost):
            call()
    assert not state.is_whole()
    state.begin_rebuild()
    assert state.index([prediction("p")])
    assert not state.is_whole()
    state.begin_rebuild()
    state.finish_rebuild()
    assert state.is_whole()


def test_answers_come_before_it_is_known_that_the_index_was_whole_and_the_end_says_that_it_was_not(made: Made) -> None:
    state, lose = made
    ids = [f"p{number}" for number in range(1000)]
    state.index([prediction(of) for of in ids])
    answers = state.recall(ids)
    assert next(answers) == (prediction("p0"), [])
    lose()
    with pytest.raises(StateLost):
        list(answers)


@pytest.mark.redis
def test_answers_that_nobody_takes_are_not_those_of_the_next_batch(redis_url: str, topic_prefix: str) -> None:
    state = RedisState(redis_url, topic_prefix, ttl_s=60)
    state.begin_rebuild()
    ids = [f"p{number}" for number in range(1000)]
    state.index([prediction(of) for of in ids])
    answers = state.recall(ids)
    next(answers)
    assert [known for known, _ in state.recall(["p7"])] == [prediction("p7")]  # while the other waits, too
    del answers
    assert [known for known, _ in state.recall(["p8", "p9"])] == [prediction("p8"), prediction("p9")]
    state.close()


def test_a_prediction_heard_of_twice_is_told_once_with_both(made: Made) -> None:
    state, _ = made
    state.index([prediction("p"), prediction("q")])
    labels = [Heard(f"c/t/0@{n}", {}, "", 5, 3, 0, n) for n in range(3)]
    told = list(state.hear([("p", labels[0]), ("q", labels[1]), ("p", labels[2])], 9))
    assert sorted(of for of, _ in told) == ["p", "q"]
    assert sorted(dict(told)["p"][1], key=lambda label: label.place) == [labels[0], labels[2]]


@pytest.mark.redis
def test_another_life_finds_the_index_whole(redis_url: str, topic_prefix: str) -> None:
    first = RedisState(redis_url, topic_prefix, ttl_s=60)
    assert not first.is_whole()
    first.begin_rebuild()
    first.finish_rebuild()
    second = RedisState(redis_url, topic_prefix, ttl_s=60)
    assert second.is_whole()
    second.begin_rebuild()
    with pytest.raises(StateLost):  # the first one's view may be incomplete from here on
        list(first.recall(["p"]))
    first.close()
    second.close()


@pytest.mark.redis
def test_a_restarted_server_is_not_whole_even_with_its_keys(redis_url: str, topic_prefix: str) -> None:
    client: Any = redis.Redis.from_url(redis_url)
    state = RedisState(redis_url, topic_prefix, ttl_s=60)
    state.begin_rebuild()
    state.finish_rebuild()
    assert state.is_whole()
    (mark,) = client.keys(f"{{{topic_prefix}:outcomes:*whole")
    client.set(mark, "the run before a token")
    assert not state.is_whole()
    state.close()
    client.close()


@pytest.mark.redis
def test_entries_expire(redis_url: str, topic_prefix: str) -> None:
    state = RedisState(redis_url, topic_prefix, ttl_s=60)
    state.begin_rebuild()
    state.index([prediction("p")])
    state.know([(KEY, label(1))])
    client = redis.Redis.from_url(redis_url)
    keys = [key for key in client.scan_iter(f"{{{topic_prefix}:*") if not key.endswith(b"whole")]
    assert len(keys) == 2
    assert all(client.ttl(key) in range(1, 61) for key in keys)
    client.close()
    state.close()


@pytest.mark.redis
def test_a_server_that_may_evict_is_refused(redis_url: str, topic_prefix: str) -> None:
    client = redis.Redis.from_url(redis_url)
    client.config_set("maxmemory", "1gb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(InvalidInput, match="evict"):
            RedisState(redis_url, topic_prefix, ttl_s=60)
    finally:
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")
        client.close()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="Redis at"):
        RedisState("redis://127.0.0.1:1/0", "m", ttl_s=60)
