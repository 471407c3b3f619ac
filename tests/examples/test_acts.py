"""Waiting for the loop: in time, in vain with everything that helps, or no longer once it cannot come true."""

from io import StringIO
from pathlib import Path

import pytest
from inspection.acts import SIZES, Acts, Options
from inspection.live import LiveScreen, PlainScreen, open_screen, sparkline
from inspection.recording import Recording
from rich.console import Console

from tidemill.core.errors import DeadlineExceeded, Permanent
from tidemill.core.settings import Settings
from tidemill.events.records import Decision
from tidemill.spec.load import load
from tidemill.spec.model import VolumeTrigger
from tidemill.testing.clock import ManualClock


@pytest.fixture
def written() -> StringIO:
    return StringIO()


@pytest.fixture
def acts(tmp_path: Path, written: StringIO) -> Acts:
    clock = ManualClock()
    return Acts(Options(), Settings(state=tmp_path), PlainScreen(Console(file=written, width=200), clock), clock)


def decision(kind: str, reason: str) -> Decision:
    return Decision(decision_id=kind, kind=kind, model="m", time=1, subject="r1", reason=reason)


def test_a_wait_in_vain_says_for_what_with_the_last_decisions_and_where_the_logs_are(
    acts: Acts, tmp_path: Path
) -> None:
    acts.recording.decisions.append(decision("hold", "labelling differs"))
    with pytest.raises(DeadlineExceeded, match="waited 90 s for a drift signal") as raised:
        acts.wait("a drift signal", lambda: False, 90)
    assert "hold r1: labelling differs" in raised.value.message
    assert str(tmp_path / "logs") in str(raised.value.hint)
    assert acts.clock.monotonic() == pytest.approx(90, abs=1)


@pytest.mark.parametrize("kind", ["run-failed", "run-finished", "roll-back"])
def test_a_wait_ends_at_once_when_it_can_no_longer_come_true(acts: Acts, kind: str) -> None:
    acts.recording.decisions.append(decision(kind, "train failed: no space"))
    with pytest.raises(Permanent, match="train failed: no space"):
        acts.wait("its promotion", lambda: False, 90)
    assert acts.clock.monotonic() < 1


def test_in_the_second_act_a_roll_back_is_what_is_waited_for(acts: Acts) -> None:
    acts.recording.decisions.append(decision("roll-back", "harm"))
    acts.wait("its verdict", lambda: acts.clock.monotonic() > 3, 90, good_if_rolled_back=True)


def test_what_is_decided_while_waiting_is_told(acts: Acts, written: StringIO) -> None:
    acts.recording.decisions.append(decision("start-run", "brightness fell"))
    acts.wait("a while", lambda: acts.clock.monotonic() > 1, 5)
    assert written.getvalue().count("start-run r1: brightness fell") == 1


def test_each_size_has_the_history_that_the_resource_asks_for(example: Path) -> None:
    triggers = load(example / "model.yaml").spec.triggers
    assert triggers.volume is None  # or the line's own labels would start a run in the middle of the story
    assert all(size.history >= VolumeTrigger().new_labels for size in SIZES.values())


def test_the_live_view_shows_stage_rates_accuracy_drift_and_traffic(recording: Recording) -> None:
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=150, height=60)
    clock = ManualClock()
    screen = open_screen(console, clock)
    assert isinstance(screen, LiveScreen)
    with screen:
        screen.stage("the light changes", "darker, warmer")
        screen.note("$ tidemill apply")
        screen.show(recording, None)
        clock.advance(1)
        screen.show(recording, None)
    shown = file.getvalue()
    for word in (
        "the light changes",
        "tidemill apply",
        "traffic",
        "r20261009-090120",
        "saturation rose",
        "rolled-back",
    ):
        assert word in shown


def test_a_sparkline_has_a_block_for_each_value() -> None:
    assert sparkline([0, 0.5, 1, 2, -1]) == "▁▅██▁"
