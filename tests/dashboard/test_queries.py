"""What the pages show, of a lake and a status as the loop leaves them."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tidemill.control.protocols import StoredModel
from tidemill.control.state import Drift, LoopStatus, Seen, Version, encode_status
from tidemill.core.clock import to_ms
from tidemill.core.errors import InvalidInput
from tidemill.dashboard.audit import Done
from tidemill.dashboard.pages.loop_picture import loop_picture
from tidemill.dashboard.pictures import Pictures, media_type
from tidemill.dashboard.queries.browse import Picture, Wanted, browse, things_of, things_of_events
from tidemill.dashboard.queries.models import headline_of, model_row
from tidemill.dashboard.queries.quality import quality_over_time, window_for
from tidemill.dashboard.queries.rollout import Trail, rollout_view
from tidemill.dashboard.queries.said import said_of
from tidemill.dashboard.queries.timeline import timeline
from tidemill.dashboard.queries.versions import compare, runs_of, versions_of
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.pictures import PictureStore
from tidemill.events.records import Decision, Outcome, Signal
from tidemill.events.sources import Source
from tidemill.ingest.tables import EVENT_COLUMNS
from tidemill.outcomes.known import Cut
from tidemill.outcomes.quality import quality_of
from tidemill.outcomes.tables import LABELS, OUTCOMES, PREDICTIONS
from tidemill.rollout.cells import Fold
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, TrafficSeen, TrafficWanted
from tidemill.rollout.plan import RolloutPlan, Span
from tidemill.rollout.state import RolloutState
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.rollout import EPOCH_MS, example_plan

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
RESOURCE = example_resource()
JPEG = b"\xff\xd8\xff\xe0 a picture"
HARM = '<script>alert("1")</script>'


def written(lake: Path, name: str, schema: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A table of the lake with these rows."""
    source = Source("c", name, 0)
    placed = [dict.fromkeys(schema) | {"source": str(source), "offset": at} | row for at, row in enumerate(rows)]
    table = LakeTable(table_uri(str(lake), RESOURCE.id, name), schema, pipeline="tests")
    upto = {Source.parse(str(row["source"])): len(rows) for row in placed}
    table.append(pl.DataFrame([{key: row[key] for key in schema} for row in placed], schema=schema), upto)


def prediction(number: int, answer: str, confidence: float, **more: Any) -> dict[str, Any]:
    at = NOON + timedelta(seconds=number)
    output = {"class": answer, "confidence": confidence, "box": [1, 2, 3, 4] if answer == "scratch" else None}
    row = {"prediction_id": f"p{number}", "event_id": f"e{number}", "version": "v1", "output": json.dumps(output)}
    return {"entity": "north" if number % 2 else "south", "predicted_at": at, "event_date": at.date()} | row | more


def outcome(number: int, label: str | None, loss: float | None, **more: Any) -> dict[str, Any]:
    at = NOON + timedelta(seconds=number)
    row = {"prediction_id": f"p{number}", "revision": 0, "version": "v1", "loss": loss, "output": '{"class": "ok"}'}
    row |= {"label": None if label is None else json.dumps({"defect": label, "box": None})}
    return {"entity": "north", "predicted_at": at, "event_date": at.date()} | row | more


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """Six predictions, and what came of five of them; a picture with one event."""
    answers = [("ok", 0.9), ("scratch", 0.8), ("ok", 0.7), ("scratch", 0.6), ("scratch", 0.5), ("ok", 0.4)]
    written(tmp_path, "predictions", PREDICTIONS, [prediction(n, *one) for n, one in enumerate(answers)])
    outcomes = [outcome(0, "ok", 0.0), outcome(1, "ok", 1.0), outcome(2, "scratch", 1.0), outcome(3, "scratch", 0.9)]
    outcomes += [outcome(1, "scratch", 0.0, revision=1), outcome(4, None, None, disputed=True)]
    written(tmp_path, "outcomes", OUTCOMES, outcomes)
    event = {"entity": "south", "event_id": "e0", "event_date": NOON.date(), "image": JPEG}
    written(tmp_path, "events", {**EVENT_COLUMNS, "image": pl.Binary()}, [event])
    said = [("ada", "ok"), ("ben", "scratch"), ("ada", "scratch")]
    rows = [
        {"labeller": who, "value": json.dumps({"defect": word}), "entity": "south", "event_id": "e0"}
        | {"available_at": NOON + timedelta(seconds=at), "available_date": NOON.date()}
        for at, (who, word) in enumerate(said)
    ]
    written(tmp_path, "labels", LABELS, rows)
    return str(tmp_path)


def names(lake: str, resource: ContinualModel = RESOURCE, **wanted: Any) -> list[str]:
    now = NOON + timedelta(minutes=1)
    return [one.prediction_id for one in browse(lake, resource, Wanted(**wanted), now, limit=24).things]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["p5", "p4", "p3", "p2", "p1", "p0"]),
        ({"kind": "right"}, ["p1", "p0"]),
        ({"kind": "wrong"}, ["p3", "p2"]),
        ({"kind": "missed"}, ["p2"]),
        ({"kind": "box"}, ["p3"]),
        ({"kind": "disputed"}, ["p4"]),
        ({"kind": "unlabelled"}, ["p5"]),
        ({"kind": "false alarm"}, []),
        ({"entity": "north"}, ["p5", "p3", "p1"]),
        ({"entity": "nowhere"}, []),
        ({"answer": "ok", "order": "least sure"}, ["p5", "p2", "p0"]),
        ({"least": 0.55, "most": 0.75}, ["p3", "p2"]),
        ({"version": "v2"}, []),
        ({"minutes": 1, "order": "surest"}, ["p0", "p1", "p2", "p3", "p4", "p5"]),
    ],
)
def test_predictions_are_found_by_what_they_are(lake: str, wanted: dict[str, Any], found: list[str]) -> None:
    assert names(lake, **wanted) == found


def test_a_page_of_predictions_says_how_many_there_are(lake: str) -> None:
    found = browse(lake, RESOURCE, Wanted(), NOON, limit=2, skip=3)
    assert [one.prediction_id for one in found.things] == ["p2", "p1"]
    assert (found.total, found.looked_at, found.entities, found.answers) == (
        6,
        6,
        ("north", "south"),
        ("ok", "scratch"),
    )


def test_nothing_is_found_before_there_is_a_lake(tmp_path: Path) -> None:
    assert names(str(tmp_path)) == []
    assert things_of(str(tmp_path), RESOURCE, ["p0"]) == ()


def test_a_picture_is_beside_what_was_answered_to_it_unless_it_is_redacted(lake: str) -> None:
    (thing,) = things_of(lake, RESOURCE, ["p0"])
    assert thing.picture == Picture(NOON.date(), None, JPEG)
    redacted = example_resource(serving={"log": {"redact": ["image"]}})
    (hidden,) = things_of(lake, redacted, ["p0"])
    assert hidden.picture is None


def test_an_event_that_nobody_asked_about_can_be_looked_at_too(lake: str) -> None:
    asked, alone = things_of_events(lake, RESOURCE, [("south", "e0"), ("east", "gone")])
    assert (asked.prediction_id, alone.answer, alone.about) == (
        "p0",
        "nobody asked",
        {"entity": "east", "event_id": "gone"},
    )


def test_each_labellers_last_word_is_shown(lake: str) -> None:
    (thing,) = things_of(lake, RESOURCE, ["p0"])
    assert [(one.labeller, one.label) for one in said_of(lake, RESOURCE, thing)] == [
        ("ada", "scratch"),
        ("ben", "scratch"),
    ]


def test_a_picture_is_handed_out_as_what_it_is_and_nothing_else(lake: str) -> None:
    pictures = Pictures(lake)
    assert pictures.show(RESOURCE.id, Picture(NOON.date(), None, b"<svg onload=alert(1)>")) is None
    store = PictureStore(table_uri(lake, RESOURCE.id, "pictures"))
    for digest, told in (("../../etc/passwd", "no digest"), (store.put(HARM.encode(), NOON.date()), "neither a JPEG")):
        with pytest.raises(InvalidInput, match=told):
            pictures.get(RESOURCE.id, NOON.date().isoformat(), digest)
    assert media_type(JPEG) == "image/jpeg"
    assert media_type(b"GIF89a") is None


def test_pictures_are_kept_and_forgotten_by_many_threads_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.dashboard.pictures._KEPT_BYTES", 60)
    pictures = Pictures(str(tmp_path))

    def show(number: int) -> None:
        pictures.show("m", Picture(NOON.date(), None, JPEG + bytes([number % 7])))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(show, range(2000)))
    kept = pictures._kept.values()
    assert sum(map(len, kept)) == pictures._bytes <= 60


def test_quality_over_time_is_of_windows_that_people_count_in(lake: str) -> None:
    window, points = quality_over_time(lake, RESOURCE)
    assert window == 1000
    assert [(one.at - to_ms(NOON), one.error, one.labelled) for one in points][:2] == [(0, 0.0, 1), (1000, 0.0, 1)]
    assert window_for(30 * 60_000) == 60_000
    assert window_for(10**12) == 168 * 3600 * 1000


def test_the_error_of_a_window_is_the_one_that_the_command_line_tells(lake: str) -> None:
    window, points = quality_over_time(lake, RESOURCE)
    told = quality_of(lake, RESOURCE, Cut(window_ms=window))
    assert [(one.error, (one.low, one.high), one.outcomes, one.labelled) for one in points] == [
        (one.error.mean, tuple(one.error.interval), one.outcomes, one.labelled) for one in told
    ]


def version(name: str) -> Version:
    return Version(version=name, artifact=f"/nowhere/{name}", since=to_ms(NOON))


def decision(kind: str, subject: str, second: int = 0, **more: Any) -> Decision:
    at = to_ms(NOON) + second * 1000
    made = Decision(decision_id=f"{kind}{second}", kind=kind, model="m", time=at, subject=subject, reason="because")
    return msgspec.structs.replace(made, **more)


SIGNAL = Signal(
    signal_id="s", kind="drift", feature=HARM, time=to_ms(NOON) + 5000, version="v1", evidence=1.2, message="it fell"
)


def status_of(**more: Any) -> LoopStatus:
    revisions = tuple(RevisionSeen(version=name, share=share, ready=True) for name, share in (("v2", 25), ("v1", 75)))
    return LoopStatus(
        created_at=to_ms(NOON),
        phase="Canary",
        champion=version("v1"),
        candidate=version("v2"),
        drift=Drift(alarms=(SIGNAL,)),
        traffic=TrafficWanted(tuple(RevisionWanted(version=n, artifact="", share=50) for n in ("v1", "v2"))),
        seen=Seen(traffic=TrafficSeen(revisions)),
        decisions=(
            decision("start-run", "v1", figures={"cause": "initial"}),
            decision("run-failed", "v1", 1),
            decision("start-run", "v2", 2, figures={"cause": "drift"}),
            decision(
                "start-rollout", "v2", 3, figures={"gates": [{"gate": "fresh", "passed": True, "reason": "fine"}]}
            ),
        ),
        **more,
    )


def stored(status: LoopStatus | None) -> StoredModel:
    data = None if status is None else encode_status(status)
    return StoredModel(resource=RESOURCE, status=data, version="1")


def test_a_row_says_where_a_model_stands(lake: str) -> None:
    kept = stored(status_of())
    headline = headline_of(lake, kept, NOON + timedelta(hours=1))
    flow = {"lag": 3, "views": {"a": {"age_s": 1.0, "slo_ok": True}, "b": {"age_s": 9.0, "slo_ok": False}}}
    row = model_row(kept, NOON, headline, flow)
    assert (row.phase, row.champion, row.candidate, row.drift) == ("Canary", "v1", "v2", (HARM,))
    assert [(one.version, one.percent, one.is_candidate) for one in row.traffic] == [
        ("v1", 75, False),
        ("v2", 25, True),
    ]
    assert (row.fresh_s, row.fresh_ok, row.behind) == (9.0, False, 3)
    assert row.next == "candidate v2 is being rolled out"
    assert headline is not None
    assert (headline.outcomes, headline.labelled, row.backlog) == (5, 4, 1)


@pytest.mark.parametrize("data", [None, b"no status"])
def test_a_model_that_control_has_not_seen_has_a_row_too(data: bytes | None) -> None:
    row = model_row(StoredModel(resource=RESOURCE, status=data, version="1"), NOON, None, None)
    assert (row.phase, row.traffic, row.backlog, row.next) == ("Pending", (), None, "waits for control: is it running?")


def test_the_timeline_tells_decisions_alarms_and_labels_newest_first() -> None:
    done = [
        Done(
            time=to_ms(NOON) + 9000,
            by="ada",
            role="labeller",
            action="label",
            model="m",
            result=one,
            told={"labels": 3},
        )
        for one in ("taken", "done")
    ]
    found = timeline(status_of(), done)
    assert [(one.kind, one.tone) for one in found] == [
        ("labels", "plain"),
        ("drift", "warn"),
        ("start-rollout", "run"),
        ("start-run", "run"),
        ("run-failed", "bad"),
        ("start-run", "run"),
    ]
    assert timeline(None) == ()


def test_the_picture_of_the_loop_holds_nothing_but_text_of_what_came_from_outside() -> None:
    row = model_row(stored(status_of()), NOON, None, None)
    picture = loop_picture(replace(row, name=HARM, champion=HARM), status_of())
    assert "<script>" not in picture
    assert "&lt;script&gt;" in picture


def test_runs_and_versions_say_why_they_were_made_and_what_their_gates_said() -> None:
    registry = MemoryRegistry(ManualClock())
    for name, cause in (("v1", "initial"), ("v2", "drift")):
        tags = {"tidemill.cause": cause, "tidemill.gate.fresh": "passed", "tidemill.snapshot": "a" * 64}
        registry.register(RESOURCE.id, name, f"/nowhere/{name}", tags=tags, description=f"card of {name}")
    registry.set_alias(RESOURCE.id, "champion", "v1")
    second, first = versions_of(registry, RESOURCE.id, status_of())
    assert (first.version, first.place, second.place, second.card) == ("v1", "champion", "", "card of v2")
    assert [(gate.name, gate.verdict, gate.reason) for gate in second.gates] == [("fresh", "passed", "fine")]
    assert [(gate.name, gate.verdict) for gate in first.gates] == [("fresh", "passed")]
    told = {row.name: (row.one, row.other) for row in compare(first, second, ())}
    assert told["cause"] == ("initial", "drift")
    assert told["gate fresh"] == ("passed", "passed: fine")
    assert [(one.run, one.cause, one.failed) for one in runs_of(status_of())] == [
        ("v2", "drift", False),
        ("v1", "initial", True),
    ]


def rolling(plan: RolloutPlan, spans: tuple[Span, ...]) -> RolloutState:
    return RolloutState(plan=plan, phase="canary", step=1, spans=spans, phase_since=EPOCH_MS, judged_since=EPOCH_MS)


def test_a_rollout_shows_its_steps_and_both_versions() -> None:
    plan = example_plan()
    told: dict[str, Any] = {
        "reason": "4 of 20 outcomes",
        "e_promote": 3.5,
        "candidate_outcomes": 4,
        "candidate_error": 0.25,
    }
    seen = Seen(traffic=status_of().seen.traffic, rollout=told)
    status = msgspec.structs.replace(status_of(rollout=rolling(plan, ())), seen=seen)
    view = rollout_view(RESOURCE, status)
    assert [one.state for one in view.steps] == ["done", "now", *["ahead"] * (len(plan.weights) - 2)]
    assert (view.active, view.e_promote, view.needed, view.deadline) == (
        True,
        3.5,
        1 / plan.risk,
        EPOCH_MS + plan.timeout_ms,
    )
    champion, candidate = view.arms
    assert (champion.asked, champion.seen, candidate.judged, candidate.error) == (50, 75, 4, 0.25)
    assert rollout_view(RESOURCE, status_of()).active is False


def rolled(plan: RolloutPlan) -> list[dict[str, Any]]:
    """Outcomes of both versions, half a second apart, on two partitions."""
    rows = []
    for number in range(400):
        at = datetime.fromtimestamp(EPOCH_MS / 1000, UTC) + timedelta(seconds=number / 2)
        name = plan.candidate.name if number % 2 else "v1"
        row = outcome(number, "ok", float(number % 7 == 0), version=name, request_id=f"r{number}")
        row |= {"source": f"c/outcomes/{number % 3 % 2}", "offset": number}
        rows.append(row | {"predicted_at": at, "eligible_at": at, "available_at": at, "event_date": at.date()})
    return rows


@pytest.mark.parametrize("at_once", [1000, 90])
def test_the_way_of_the_evidence_ends_where_control_stands(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = example_plan(offsets={})
    spans = (Span(step=0, weight=plan.weights[0], since=EPOCH_MS),)
    rows, fold, trail = rolled(plan), Fold(plan), Trail(plan)
    written(tmp_path, "outcomes", OUTCOMES, sorted(rows, key=lambda row: row["source"]))
    for row in rows:
        fold.add(int(row["source"][-1]), judged(row))
    monkeypatch.setattr("tidemill.dashboard.queries.rollout.MOST_OUTCOMES", at_once)
    has_more, looks = True, 0
    while has_more:
        points, has_more = trail.follow(str(tmp_path), RESOURCE.id, spans)
        looks += 1
    assert looks == -(-len(rows) // at_once)
    assert points[-1].blocks == fold.evidence(spans).blocks > 50
    assert points[-1].promote == pytest.approx(fold.evidence(spans).promotion.peak)
    assert [one.promote for one in points] == sorted(one.promote for one in points)
    assert trail.follow(str(tmp_path), RESOURCE.id, spans) == (points, False)


def judged(row: dict[str, Any]) -> Outcome:
    times = {name: to_ms(row[name]) for name in ("predicted_at", "eligible_at")}
    kept = {name: row[name] for name in ("prediction_id", "version", "entity", "request_id", "loss")}
    return msgspec.convert({**kept, **times, "output": {}, "label": {"defect": "ok"}}, Outcome)
