"""Runs that adopt a class: in snapshot, version and answers; what was known stays known."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tidemill.artifacts import verify
from tidemill.core.clock import SystemClock
from tidemill.core.errors import DeadlineExceeded, InvalidInput, UserCodeError
from tidemill.evaluation.gates import judge, may_pass
from tidemill.events.records import Decision, Request
from tidemill.retrain import data, version
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import events_frame, labels_frame, picture, tiny_resource
from tidemill.training.predictor import OnnxModel
from tidemill.training.snapshot import Snapshot, write_snapshot

FIRST = Grant(run=RUN, token="t", expires_at=0, cause="initial")
CODE = {"codec": "tiny_model:GrowingCodec", "trainer": "tiny_model:GrowingTrainer", "initial": "dataset"}


def nobody(request: Request, deadline_s: float) -> Decision:
    raise DeadlineExceeded("nobody is asked here")


@pytest.fixture
def place_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Place]:
    monkeypatch.syspath_prepend(site.code)

    def make(*, least: int | None = 20, **spec: object) -> Place:
        triggers = {"newClass": {"minExamples": least}} if least else {}
        site.put(tiny_resource(site.resource.metadata.name, **({"model": CODE, "triggers": triggers} | spec)))
        clock = SystemClock()
        return Place(site.resource, site.lake, site.artifacts, clock, nobody, lambda: MemoryRegistry(clock))

    return make


def fill(site: Site, count: int, *, first: int = 0, dents: int = 0) -> None:
    """Events and labels; every third of the newest is a dent, bright to the left and dark to the right."""
    events = events_frame(count, first=first)
    numbers = [number for number in range(first, first + count) if number % 3 == 0][-dents:] if dents else []
    values = ["dent" if n in numbers else "scratch" if n % 2 else "ok" for n in range(first, first + count)]
    images = [_dented(n) if n in numbers else picture(n % 2 == 1, n) for n in range(first, first + count)]
    events = events.with_columns(image=pl.Series(images, dtype=pl.Binary))
    site.fill(events, labels_frame(events, value=[json.dumps({"defect": one}) for one in values]))


def _dented(seed: int) -> bytes:
    import io

    import numpy as np
    from PIL import Image

    pixels = np.hstack([np.full((8, 4), 230), np.full((8, 4), 20)]) + np.random.default_rng(seed).normal(0, 15, (8, 8))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "L").save(file, "PNG")
    return file.getvalue()


def trained(place: Place, grant: Grant) -> tuple[Snapshot, Path]:
    taken = data.snapshot(place, grant)
    data.validate(place, taken)
    version.train(place, grant, taken)
    return taken, place.version_folder(grant.run)


def after(champion: Path, run: str) -> Grant:
    return Grant(run=run, token="t", expires_at=0, champion=champion.name, champion_artifact=str(champion))


def test_a_class_is_adopted_learnt_answered_and_never_dropped(site: Site, place_of: Callable[..., Place]) -> None:
    place = place_of()
    fill(site, 400)
    taken, champion = trained(place, FIRST)
    assert (taken.record.classes, taken.record.adopted) == (("ok", "scratch"), ())

    fill(site, 150, first=400, dents=30)
    taken, folder = trained(place, after(champion, "r2"))
    assert (taken.record.classes, taken.record.adopted) == (("ok", "scratch", "dent"), ("dent",))
    rows = taken.frame().filter(pl.col("label").str.contains("dent"))
    assert rows.filter(pl.col("part") == "new").height == 15
    assert verify(folder).prediction.classes == ("ok", "scratch", "dent")
    answers = OnnxModel(folder).answers([{"image": _dented(n)} for n in range(20)])
    assert [answer["class"] for answer in answers].count("dent") >= 18

    evaluation = version.evaluate(place, after(champion, "r2"), taken)
    assert evaluation.champion is not None
    labels = taken.frame().filter(pl.col("part") == "fresh")["label"].to_list()
    of_dents = [loss for loss, label in zip(evaluation.champion.losses, labels, strict=True) if "dent" in label]
    assert of_dents == [1.0] * 15  # the champion cannot be right on them
    assert evaluation.candidate.mean < evaluation.champion.mean
    assert may_pass(judge(place.resource.spec.gates, evaluation))

    fill(site, 60, first=550)
    taken, third = trained(place_of(least=None), after(folder, "r3"))  # the trigger is gone, the class stays
    assert (taken.record.classes, taken.record.adopted) == (("ok", "scratch", "dent"), ())
    assert taken.record.invalid_labels == 0
    assert taken.frame().filter(pl.col("label").str.contains("dent")).height > 0
    assert verify(third).prediction.classes == ("ok", "scratch", "dent")


def test_a_version_that_forgets_an_old_class_for_a_new_one_is_refused(
    site: Site, place_of: Callable[..., Place]
) -> None:
    """It wins as much on the new class as it loses on the old one: no reason to trust it."""
    fill(site, 400)
    _, champion = trained(place_of(), FIRST)
    fill(site, 150, first=400, dents=30)
    place, granted = place_of(model=CODE | {"warmStart": False}), after(champion, "r2")
    taken = data.snapshot(place, granted)
    forgets = pl.col("label").str.contains("scratch") & (pl.col("part") != "fresh")
    learnt = taken.frame().filter(~forgets)
    record = msgspec.structs.replace(taken.record, rows=dict(learnt["part"].value_counts().iter_rows()))
    forgetful = write_snapshot(taken.folder.parent, learnt, taken.reference(), record)
    with pytest.raises(InvalidInput, match=r"class scratch \(0\)"):
        data.validate(place, forgetful)
    version.train(place, granted, forgetful)
    verdicts = judge(place.resource.spec.gates, version.evaluate(place, granted, forgetful))
    assert [one.passed for one in verdicts if one.gate == "fresh"] == [False]


def test_rows_of_a_class_with_too_few_examples_wait(site: Site, place_of: Callable[..., Place]) -> None:
    fill(site, 400, dents=19)
    taken = data.snapshot(place_of(least=20), FIRST)
    assert taken.record.classes == ("ok", "scratch")
    assert sum(taken.record.rows.values()) == 381
    assert taken.record.invalid_labels == 0
    assert data.snapshot(place_of(least=19), FIRST).record.adopted == ("dent",)


def test_without_the_trigger_they_wait_however_many_there_are(site: Site, place_of: Callable[..., Place]) -> None:
    fill(site, 400, dents=100)
    taken = data.snapshot(place_of(least=None), FIRST)
    assert (taken.record.classes, taken.record.adopted) == (("ok", "scratch"), ())


def test_a_codec_that_is_not_told_its_classes_learns_no_others(site: Site, place_of: Callable[..., Place]) -> None:
    fill(site, 400, dents=100)
    place = place_of(model=CODE | {"codec": "tiny_model:Codec"})
    taken = data.snapshot(place, FIRST)
    assert taken.record.adopted == ()
    with pytest.raises(InvalidInput, match="tiny_model:Codec has no attribute classes"):
        data.validate(place, taken)


def test_a_trainer_that_is_not_told_its_classes_cannot_learn_others(site: Site, place_of: Callable[..., Place]) -> None:
    fill(site, 400, dents=100)
    place = place_of(model=CODE | {"trainer": "tiny_model:Trainer"})
    taken = data.snapshot(place, FIRST)
    with pytest.raises(UserCodeError, match="tiny_model:Trainer has no classes: it cannot learn dent"):
        version.train(place, FIRST, taken)


def test_a_class_that_is_declared_later_keeps_its_place(site: Site, place_of: Callable[..., Place]) -> None:
    fill(site, 400, dents=60)
    _, champion = trained(place_of(), FIRST)
    declared = {"type": "classification", "classes": ["ok", "dent", "scratch"]}
    taken = data.snapshot(place_of(prediction=declared), after(champion, "r2"))
    assert taken.record.classes == ("ok", "scratch", "dent")


def test_another_first_class_needs_a_start_from_scratch(site: Site, place_of: Callable[..., Place]) -> None:
    fill(site, 400)
    _, champion = trained(place_of(), FIRST)
    declared = {"type": "classification", "classes": ["scratch", "ok"]}
    place = place_of(prediction=declared)
    taken = data.snapshot(place, after(champion, "r2"))
    with pytest.raises(InvalidInput, match="do not begin with the champion's"):
        version.train(place, after(champion, "r2"), taken)
