"""Classes that nobody declared: what labels state, what a run holds out of it, and the head that grows."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tidemill.artifacts.classes import known_classes
from tidemill.core.clock import to_ms
from tidemill.core.errors import InvalidInput
from tidemill.spec.model import ContinualModel
from tidemill.testing.training import START, events_frame, labels_frame, tiny_resource
from tidemill.training.classes import fresh_rows, new_classes, ready_from, stated
from tidemill.training.dataset import Known, labelled, split
from tidemill.training.user_code import load_codec, load_trainer, takes_classes
from tidemill.training.weights import load_weights, save_weights

LATER = to_ms(START + timedelta(days=1))


def said(*classes: str) -> list[str]:
    return [json.dumps({"defect": name}) for name in classes]


def found(events: pl.DataFrame, labels: pl.DataFrame, resource: ContinualModel, **more: Any) -> dict[str, int]:
    given_ = {"as_of": LATER, "least": 1} | more
    return stated(events.lazy(), labels.lazy(), resource, **given_)


def judged_by(conflict: str, **more: Any) -> ContinualModel:
    fields = [{"name": "defect", "type": "class"}, {"name": "box", "type": "box"}]
    return tiny_resource(labels={"fields": fields, "maturity": {"after": "4s"}, "conflict": conflict, **more})


def spoken(events: pl.DataFrame, labeller: str, *classes: str, after_s: float, first: int) -> pl.DataFrame:
    offsets = list(range(first, first + events.height))
    who = [labeller] * events.height
    return labels_frame(events, after_s=after_s, labeller=who, value=said(*classes), offset=offsets)


def test_classes_are_counted_by_event_in_the_order_of_their_first_labels(resource: ContinualModel) -> None:
    events = events_frame(5)
    labels = labels_frame(events, value=said("ok", "dent", "crack", "dent", "scratch"))
    assert list(found(events, labels, resource).items()) == [("dent", 2), ("crack", 1)]
    assert found(events, labels, resource, least=2) == {"dent": 2}
    assert found(events, labels, resource.with_classes(["ok", "scratch", "dent"])) == {"crack": 1}


def test_a_class_counts_once_its_events_are_mature_and_in_the_lake(resource: ContinualModel) -> None:
    events = events_frame(2)
    labels = labels_frame(events, value=said("dent", "dent"))
    assert found(events, labels, resource, as_of=to_ms(START) + 4_000) == {"dent": 1}
    assert found(events, labels, resource, as_of=to_ms(START) + 3_999) == {}
    assert found(events.head(1), labels, resource) == {"dent": 1}


def test_labels_of_predictions_count_too(resource: ContinualModel) -> None:
    events = events_frame(2)
    ids: dict[str, Any] = {"entity": [None, None], "event_id": [None, None], "prediction_id": ["p0", "p1"]}
    labels = labels_frame(events, value=said("dent", "ok"), **ids)
    about = pl.DataFrame({"prediction_id": ["p0", "p1"], "entity": events["entity"], "event_id": events["event_id"]})
    assert found(events, labels, resource, predictions=about.lazy()) == {"dent": 1}
    assert found(events, labels, resource) == {}


@pytest.mark.parametrize(("conflict", "count"), [("last", 3), ("majority", 1), ("unanimous", 1), ("priority", 2)])
def test_a_class_counts_as_far_as_labellers_agree(conflict: str, count: int) -> None:
    more = {"priority": ["ann"]} if conflict == "priority" else {}
    resource, events = judged_by(conflict, **more), events_frame(3)
    labels = pl.concat(
        [
            spoken(events, "ann", "dent", "dent", "scratch", after_s=1, first=0),
            spoken(events, "bob", "dent", "scratch", "scratch", after_s=2, first=10),
            spoken(events, "cho", "dent", "scratch", "scratch", after_s=3, first=20),
            spoken(events, "dee", "dent", "dent", "dent", after_s=4, first=30).tail(2),
        ]
    )
    # Of e1 two say dent and two scratch, and dent was said last: that is what a majority among equals is.
    expected = count + 1 if conflict == "majority" else count
    assert found(events, labels, resource) == {"dent": expected}


def test_rows_of_an_adopted_class_are_new_whenever_they_were_labelled(resource: ContinualModel) -> None:
    events = events_frame(600)
    labels = labels_frame(events, value=said(*("dent" if n < 30 else "ok" for n in range(600))))
    grown = resource.with_classes(["ok", "scratch", "dent"])
    rows = labelled(events.lazy(), labels.lazy(), grown, as_of=LATER).rows
    known = Known({"c/events/0": 499}, {"c/labels/0": 499}, LATER - 1)
    adopted = ready_from(rows, grown, ("dent",), LATER)
    new = split(adopted, fresh_rows=50, known=known, seed=1).filter(pl.col("part") == "new")
    assert new["offset"].to_list() == [*range(30), *range(500, 550)]
    later = Known({"c/events/0": 599}, {"c/labels/0": 599}, LATER)
    again = split(ready_from(rows, grown, (), LATER + 1), fresh_rows=50, known=later, seed=1)
    assert again.filter(pl.col("part") == "new").height == 0


def test_half_of_a_new_class_is_trained_on_however_new_it_is(resource: ContinualModel) -> None:
    events = events_frame(300)
    words = ["dent" if number >= 200 and number % 5 == 0 else "ok" for number in range(300)]
    rows = labelled(
        events.lazy(),
        labels_frame(events, value=said(*words)).lazy(),
        resource.with_classes(["ok", "scratch", "dent"]),
        as_of=LATER,
    ).rows
    assert resource.spec.gates.fresh.rows == 60
    assert fresh_rows(rows, resource, ()) == 60
    held = fresh_rows(rows, resource, ("dent",))
    assert held == 54  # the tenth of twenty stands at 245, and is trained on
    assert rows.head(300 - held)["label"].to_list().count(said("dent")[0]) == 10


@given(st.lists(st.sampled_from(["ok", "scratch", "dent"]), min_size=1, max_size=80))
def test_never_more_rows_are_newest_than_declared_and_at_least_half_a_new_class_is_trained_on(
    words: list[str],
) -> None:
    resource = tiny_resource(gates={"fresh": {"rows": 30}})
    rows = pl.DataFrame({"label": said(*words)})
    adopted = ("dent",) if "dent" in words else ()
    held = fresh_rows(rows, resource, adopted)
    assert 0 <= held <= min(30, len(words))
    trained = words[: len(words) - held].count("dent")
    assert trained >= words.count("dent") / 2


names = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(names, names)
def test_known_classes_are_all_of_both_and_keep_the_champions_order(declared: list[str], champion: list[str]) -> None:
    known = known_classes(["none", *declared], ["none", *champion])
    assert set(known) == {"none", *declared, *champion}
    assert len(set(known)) == len(known)
    assert new_classes(known, ["none", *champion]) == known[1 + len(champion) :]


def test_another_first_class_is_no_addition() -> None:
    known = known_classes(["fine", "scratch"], ["ok", "scratch"])
    assert known == ("fine", "scratch", "ok")
    with pytest.raises(InvalidInput, match="do not begin with the champion's, ok, scratch"):
        new_classes(known, ["ok", "scratch"])


def test_code_is_told_its_classes_where_it_wants_to_be() -> None:
    classes = ("ok", "scratch", "dent")
    codec, trainer = load_codec("tiny_model:GrowingCodec", classes), load_trainer("tiny_model:GrowingTrainer", classes)
    assert codec.classes == trainer.classes == classes  # type: ignore[attr-defined]
    assert codec.targets([{"defect": "dent"}])["class"].tolist() == [2]
    assert takes_classes(load_codec("tiny_model:GrowingCodec"))
    assert not takes_classes(load_codec("tiny_model:Codec", classes))


def test_a_grown_head_keeps_the_rows_of_known_classes() -> None:
    classes = ("ok", "scratch", "dent", "crack")
    small = load_trainer("tiny_model:GrowingTrainer", classes[:2]).module()
    grown = load_trainer("tiny_model:GrowingTrainer", classes).module()
    fresh = grown.state_dict()["layers.3.weight"].clone()
    load_weights(grown, save_weights(small), new_classes=2)
    before, after = small.state_dict(), grown.state_dict()
    assert torch.equal(after["layers.1.weight"], before["layers.1.weight"])
    assert torch.equal(after["layers.3.weight"][:2], before["layers.3.weight"])
    assert torch.equal(after["layers.3.weight"][2:], fresh[2:])
    assert torch.equal(after["layers.3.bias"][:2], before["layers.3.bias"])
    picture = torch.rand(3, 8, 8)
    assert torch.allclose(grown.eval()(picture)["logits"][:, :2], small.eval()(picture)["logits"])


@pytest.mark.parametrize("new", [0, 1, 3])
def test_a_head_that_grew_by_another_number_is_refused(new: int) -> None:
    classes = ("ok", "scratch", "dent", "crack")
    content = save_weights(load_trainer("tiny_model:GrowingTrainer", classes[:2]).module())
    with pytest.raises(InvalidInput, match=r"layers\.3\.weight is \(2, 8\), now \(4, 8\)"):
        load_weights(load_trainer("tiny_model:GrowingTrainer", classes).module(), content, new_classes=new)


def test_the_classes_of_a_version_that_is_gone_are_the_declared_ones(tmp_path: Path, resource: ContinualModel) -> None:
    from tidemill.artifacts.classes import as_known

    assert as_known(resource, str(tmp_path / "v1")) == resource
    assert as_known(resource, "s3://models/v1") == resource
    assert as_known(resource, "") == resource
