"""The example's folder on the path, and a story that was never told: a recording with all of its parts."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.events.cells import named
from tidemill.events.records import Decision, FeatureSketch, Signal, Sketch

EXAMPLE = Path(__file__).parents[2] / "examples" / "phone_inspection"
sys.path.insert(0, str(EXAMPLE))

from inspection.books import Books  # noqa: E402 -- the path comes first
from inspection.factory import Counts  # noqa: E402
from inspection.figures import Moments  # noqa: E402
from inspection.inspector import Inspected, Phone  # noqa: E402
from inspection.recording import Recording, StepSeen  # noqa: E402
from inspection.render import CHANGED, NORMAL, STATIONS, render  # noqa: E402
from inspection.result import Result, make_result  # noqa: E402

BEGIN = 1_760_000_000_000
V1, V2, V3 = "r20261009-090000", "r20261009-090120", "r20261009-090240"
LIGHT, DRIFT, PROMOTED, RETURNED, END = 80, 93, 125, 130, 190


def at(second: float) -> int:
    """Milliseconds of a second of the canned story."""
    return BEGIN + round(second * 1000)


@pytest.fixture
def example() -> Path:
    """The example's folder."""
    return EXAMPLE


@pytest.fixture
def moments() -> Moments:
    """When the canned story's parts began."""
    return Moments(
        started=at(0),
        stack_ready=at(9),
        history_sent=at(20),
        serving=at(60),
        light_changed=at(LIGHT),
        returned_sent=at(RETURNED),
        line_stopped=at(END),
        ended=at(END + 12),
    )


@pytest.fixture
def recording() -> Recording:
    """Answers, traffic, decisions and signals as a good run has them."""
    told = Recording(peak_memory=3 << 30, peak_processes=14)
    _answer(told)
    told.traffic += [
        (at(59), {V1: 100}),
        (at(112), {V1: 95, V2: 5}),
        (at(119), {V1: 75, V2: 25}),
        (at(PROMOTED - 0.8), {V2: 100}),
        (at(160), {V2: 95, V3: 5}),
        (at(176), {V2: 100, V3: 0}),
    ]
    told.decisions += _decisions()
    told.signals += [
        (at(61), _signal("clipping", "clipping: the reference is too small", kind="state")),
        (at(DRIFT), _signal("brightness", "brightness fell from 0.37 to 0.25, all 3 stations")),
        (at(DRIFT + 1), _signal("saturation", "saturation rose from 0.19 to 0.34, all 3 stations")),
    ]
    told.steps += [StepSeen(V2, "train", at(95), at(104)), StepSeen(V2, "evaluate", at(104.5), at(107))]
    for second in range(60, END):
        told.take_sketch(_sketch(second))
    return told


@pytest.fixture
def result(recording: Recording, moments: Moments) -> Result:
    """What follows from the canned recording."""
    return result_of(recording, moments)


def result_of(recording: Recording, moments: Moments, **changes: Any) -> Result:
    """The result of a recording; `changes` are of the books."""
    sent = len(recording.answers)
    kept = {"ingested": 8000 + sent, "repeated": 0, "quarantined": 0, "logged": sent, "joined": sent} | changes
    counts = Counts(
        events=8000 + sent,
        answered=sent,
        accepted=sent // 2,
        rejected=sent - sent // 2,
        unanswered=0,
        labels=sent,
        archived=8000,
        failures=0,
    )
    return make_result(
        recording,
        moments,
        Books(**kept),
        counts,
        seed=1,
        size="small",
        sizes={"history": 6300},
        drift_expected=moments.light_changed is not None,
        disk_bytes=100 << 20,
    )


@pytest.fixture
def make() -> Any:
    """`result_of`, for tests that change something first."""
    return result_of


def _answer(told: Recording) -> None:
    """Ten pictures a second: wrong every fiftieth time, and three times of five in the new light before version 2."""
    rng = np.random.default_rng(1)
    for name, second, version, light in (
        ("before", 60, V1, NORMAL),
        ("drifted", 80, V1, CHANGED),
        ("after", 126, V2, CHANGED),
    ):
        told.sample(name, at(second))
        for number, picture in enumerate(render(rng, [STATIONS[n % 3] for n in range(8)], light)):
            box = None if picture.box is None else [edge + 1.5 for edge in picture.box]
            output = {"class": picture.defect, "confidence": 0.97, "box": box}
            right = not (name == "drifted" and number % 2)
            phone = Phone(f"{name}-{number}", at(second + number / 10), picture)
            told.take_answer(
                Inspected(phone, at(second + number / 10), version, f"{name}-{number}", output, right, 0.01)
            )
    for number in range(600, END * 10):
        moment = number / 10
        dark = LIGHT <= moment < PROMOTED
        version = _version_at(moment, number)
        wrong = number % 5 < 3 if dark and version == V1 else number % 50 == 0 or (version == V3 and number % 2 == 0)
        told.answers.append(type(told.answers[0])(at(moment), version, not wrong))


def _version_at(second: float, number: int) -> str:
    if second < 112:
        return V1
    if second < PROMOTED - 0.8:
        return V2 if number % (20 if second < 119 else 4) == 0 else V1
    return V3 if 160 <= second < 176 and number % 20 == 0 else V2


def _decisions() -> list[Decision]:
    told: list[tuple[float, str, str, str, dict[str, Any]]] = [
        (22, "start-run", V1, "6,000 labelled events are there", {"cause": "initial"}),
        (55, "start-rollout", V1, "it is the first version", {}),
        (59, "promote", V1, "all requests now go to it", {"weight": 100}),
        (DRIFT + 0.2, "start-run", V2, "brightness fell", {"cause": "drift", "features": ["brightness"]}),
        (108, "start-rollout", V2, "it is to replace", {"skip_gates": False}),
        (112, "step-began", V2, "5 % of the requests", {"weight": 5}),
        (119, "go-on", V2, "on to 25 %", {"weight": 25}),
        (124, "set-traffic", V2, "to 100 %: not worse", {"weight": 100}),
        (PROMOTED, "promote", V2, "all requests now go to it", {"weight": 100}),
        (135, "start-run", V3, "asked for", {"cause": "manual"}),
        (156, "start-rollout", V3, "it is to replace", {"skip_gates": True}),
        (160, "step-began", V3, "5 % of the requests", {"weight": 5}),
        (175, "roll-back", V3, "from 5 % to 0: error 0.49 <against> 0.02", {"weight": 5}),
        (176, "rolled-back", V3, "all requests go to the champion again", {}),
    ]
    return [
        Decision(
            decision_id=f"d{number}",
            kind=kind,
            model="default.phone-inspection",
            time=at(second),
            subject=subject,
            reason=reason,
            figures=figures,
        )
        for number, (second, kind, subject, reason, figures) in enumerate(told)
    ]


def _signal(feature: str, message: str, *, kind: Any = "drift") -> Signal:
    return Signal(
        signal_id=feature, kind=kind, feature=feature, time=at(DRIFT), version=V1, evidence=1.2, message=message
    )


def _sketch(second: int) -> Sketch:
    dark = second >= LIGHT
    swing = np.sin(second * 1.7) * 0.02
    means = {
        "brightness": (0.25 if dark else 0.37) + swing,
        "saturation": (0.34 if dark else 0.19) + swing,
        "clipping": 0.0,
    }
    votes = {name: FeatureSketch(count=4, total=4 * float(mean)) for name, mean in means.items()}
    tick = at(second) // 1000
    return Sketch(
        source="c/t/0",
        first_offset=second,
        last_offset=second,
        max_event_time=at(second),
        tick_ms=1000,
        votes={tick: named(dict.fromkeys(STATIONS, votes))},
    )
