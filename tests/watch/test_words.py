"""What a signal says to a person."""

import pytest

from tidemill.stats.drift import Alarm
from tidemill.watch.reference import FeatureReference
from tidemill.watch.words import drift_message, movers

BRIGHTNESS = FeatureReference(
    name="brightness", state="ok", tolerance=0.2, mean=0.62, entities={"A": 0.6, "B": 0.62, "C": 0.64}
)


def alarm(rises: bool) -> Alarm:
    return Alarm(features=(0,), evidence=2.0, since=0, edge=0.55, rises=rises)


def say(
    now: float, moved: list[str], *, rises: bool = False, also: tuple[str, ...] = (), entity: str = "station"
) -> str:
    return drift_message(BRIGHTNESS, alarm(rises), now, moved, entity=entity, also=also)


def test_it_says_what_moved_from_where_to_where_and_for_whom() -> None:
    assert say(0.41, ["B", "C"]) == "brightness fell from 0.62 to 0.41, stations B and C"
    assert say(0.8, ["B"], rises=True) == "brightness rose from 0.62 to 0.8, station B"
    assert say(0.41, ["A", "B", "C"]) == "brightness fell from 0.62 to 0.41, all 3 stations"
    assert say(0.41, []) == "brightness fell from 0.62 to 0.41"
    assert say(0.41, ["B", "C"], entity="station_id") == "brightness fell from 0.62 to 0.41, stations B and C"


def test_it_names_the_features_that_made_the_alarm_together() -> None:
    assert say(0.41, ["B"], also=("contrast", "sharpness")).endswith("station B; also contrast and sharpness")


def test_figures_have_the_digits_that_tell_them_apart() -> None:
    assert say(0.6187, []) == "brightness fell from 0.62 to 0.619"


def test_a_change_of_spread_is_not_called_a_rise_or_fall() -> None:
    assert say(0.62, []) == "more of brightness lies below 0.55 than before (mean 0.62, now 0.62)"
    assert say(0.7, []).startswith("more of brightness lies below 0.55")


@pytest.mark.parametrize(
    ("recent", "moved"),
    [
        ({"A": 0.6, "B": 0.41, "C": 0.43, "": 0.48}, ["B", "C"]),
        ({"A": 0.59, "B": 0.41, "C": 0.64, "": 0.55}, ["B"]),
        ({"A": 0.4, "B": 0.41, "C": 0.43, "": 0.41}, ["A", "B", "C"]),
        ({"A": 0.7, "B": 0.7, "C": 0.7, "": 0.7}, []),
        ({"D": 0.2, "A": 0.6}, ["D"]),
    ],
)
def test_entities_are_named_that_moved_at_least_half_as_far_as_the_farthest(
    recent: dict[str, float], moved: list[str]
) -> None:
    assert movers(BRIGHTNESS.entities, 0.62, recent, rises=False) == moved
