"""Which label of an event is learnt: the one that its outcomes are judged by."""

import json
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.clock import to_ms
from tidemill.outcomes.conflict import Heard, Rule, winner
from tidemill.testing.training import START, events_frame, labels_frame, tiny_resource
from tidemill.training.dataset import Labelled, labelled, query_of
from tidemill.training.resolved import resolve

LATER = to_ms(START + timedelta(days=1))
CONFLICTS = ("last", "priority", "majority", "unanimous")

said = st.lists(
    st.tuples(
        st.sampled_from(["e0", "e1", "e2"]),
        st.sampled_from(["ann", "bob", "cy", ""]),
        st.sampled_from(['{"defect":"ok"}', '{"defect":"scratch"}', '{"defect":"ok","note":"x"}', "nothing"]),
        st.integers(0, 3),
    ),
    max_size=12,
)


def frame(labels: list[tuple[str, str, str, int]]) -> pl.DataFrame:
    rows = [
        ("a", event, labeller, text, START + timedelta(seconds=at), "c/labels/0", offset)
        for offset, (event, labeller, text, at) in enumerate(labels)
    ]
    schema = ["entity", "event_id", "labeller", "label", "label_at", "label_source", "label_offset"]
    types: dict[str, Any] = dict.fromkeys(schema[:4], pl.String()) | {"label_at": pl.Datetime("us", "UTC")}
    return pl.DataFrame(rows, schema=types | {"label_source": pl.String(), "label_offset": pl.Int64()}, orient="row")


def judged(labels: list[tuple[str, str, str, int]], event: str, rule: Rule) -> tuple[int | None, bool]:
    """What outcomes take, as offset."""
    heard = [
        Heard(f"c/labels/0@{offset}", None if text == "nothing" else json.loads(text), labeller, at, offset, 0)
        for offset, (of, labeller, text, at) in enumerate(labels)
        if of == event
    ]
    label, disputed = winner(heard, rule)
    return None if label is None else label.offset, disputed


@given(said, st.sampled_from(CONFLICTS), st.permutations(range(12)))
def test_the_label_is_the_one_that_outcomes_take_in_whatever_order_they_are_read(
    labels: list[tuple[str, str, str, int]], conflict: str, order: list[int]
) -> None:
    rule = Rule(conflict, ("bob", "ann"), ("defect",))
    shuffled = frame(labels)[[number for number in order if number < len(labels)]]
    found = resolve(shuffled, rule)
    chosen = dict(found.labels.select("event_id", "label_offset").iter_rows())
    for event in {of for of, *_ in labels}:
        offset, disputed = judged(labels, event, rule)
        assert (event in found.disputed["event_id"]) == disputed
        valid = any(of == event and text != "nothing" for of, _, text, _ in labels)
        # Under `last` a text that is no label is told as such, where it came last.
        if not disputed and valid and conflict != "last":
            assert chosen[event] == offset
        assert disputed or event in chosen


def labelled_by(conflict: str, values: dict[str, str], **labels: Any) -> Labelled:
    """One event, labelled by each of these people in this order."""
    fields = [{"name": "defect", "type": "class"}]
    resource = tiny_resource(labels={"fields": fields, "conflict": conflict, **labels})
    events = events_frame(1)
    rows = [
        labels_frame(events, after_s=at, offset=[at], labeller=[who], value=[json.dumps({"defect": said})])
        for at, (who, said) in enumerate(values.items())
    ]
    return labelled(events.lazy(), pl.concat(rows).lazy(), resource, as_of=LATER)


def test_each_rule_teaches_its_own_label() -> None:
    words = {"ann": "scratch", "bob": "scratch", "cy": "ok"}
    assert labelled_by("last", words).rows["label"].to_list() == ['{"defect": "ok"}']
    assert labelled_by("majority", words).rows["label"].to_list() == ['{"defect": "scratch"}']
    first = labelled_by("priority", words, priority=["cy", "ann"])
    assert first.rows["label"].to_list() == ['{"defect": "ok"}']


def test_a_disputed_event_is_left_out_and_counted_and_its_words_are_kept() -> None:
    found = labelled_by("unanimous", {"ann": "scratch", "bob": "ok"})
    assert found.rows.height == 0
    assert found.disputed["event_id"].to_list() == ["e0"]
    assert found.words.select("labeller", "label", "disputed").rows() == [
        ("ann", '{"defect": "scratch"}', True),
        ("bob", '{"defect": "ok"}', True),
    ]
    assert labelled_by("unanimous", {"ann": "ok", "bob": "ok"}).rows.height == 1


def test_words_are_the_last_ones_of_those_who_are_named_where_they_are_several() -> None:
    labels = [
        ("e0", "ann", '{"defect":"ok"}', 0),
        ("e0", "ann", '{"defect":"scratch"}', 1),
        ("e0", "bob", '{"defect":"ok"}', 2),
        ("e0", "", '{"defect":"ok"}', 3),
        ("e1", "ann", '{"defect":"ok"}', 0),
    ]
    found = resolve(frame(labels), Rule()).words
    assert found.select("event_id", "labeller", "label").rows() == [
        ("e0", "ann", '{"defect":"scratch"}'),
        ("e0", "bob", '{"defect":"ok"}'),
    ]


@pytest.mark.parametrize(
    ("conflict", "words"),
    [("last", "the last label"), ("unanimous", "all labellers say"), ("majority", "most labellers say")],
)
def test_the_query_says_which_label_counts(conflict: str, words: str) -> None:
    fields = [{"name": "defect", "type": "class"}]
    assert words in query_of(tiny_resource(labels={"fields": fields, "conflict": conflict}))
