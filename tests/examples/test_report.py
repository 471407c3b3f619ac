"""The report: complete, self-contained, and safe whatever stands in it."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from inspection import charts, report
from inspection.figures import Moments
from inspection.recording import Recording
from inspection.result import Result
from inspection.story import story_of

VOID = {"meta", "br"}


class Tags(HTMLParser):
    """Reads a page and notes what is open, and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]


@pytest.fixture
def page(recording: Recording, moments: Moments, result: Result) -> str:
    return report.render(story_of(recording, moments, result))


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(page: str) -> None:
    tags = read(page)
    assert "script" not in {tag for tag, _, _ in tags.attributes}
    assert "<script" not in page
    assert not re.search(r"https?://|url\(|@import", page)
    sources = [value for _, name, value in tags.attributes if name in {"src", "href", "srcset"}]
    assert sources
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)


def test_every_part_of_the_story_is_on_the_page(page: str) -> None:
    for part in ("What happened", "What the model saw", "From the change of light to 100 %", "Goals", "Decisions"):
        assert part in page
    for word in ("the light changes", "promoted", "rolled back", "brightness", "60.0 s", "roll back"):
        assert word in page
    assert page.count("<figure") == 24


def test_what_others_wrote_is_text_never_markup(page: str) -> None:
    assert "&lt;against&gt;" in page
    assert "<against>" not in page


def test_a_wrong_answer_is_marked_with_what_was_true(page: str) -> None:
    assert page.count('class="wrong"') == 4
    assert "the box is off" in page or "the truth:" in page


def test_light_and_dark_are_both_there(page: str) -> None:
    assert "prefers-color-scheme: dark" in page


def test_a_stationary_story_has_a_page_too(recording: Recording, make: Any) -> None:
    still = Moments(started=recording.answers[0].taken - 60_000, serving=recording.answers[0].taken)
    recording.decisions = recording.decisions[:3]
    recording.signals = recording.signals[:1]
    page = report.render(story_of(recording, still, make(recording, still)))
    read(page)
    assert "Nothing changed" in page
    assert "bad candidate</h2>" not in page


def test_a_story_that_ended_early_has_a_page_too(make: Any) -> None:
    moments = Moments(started=1_760_000_000_000, light_changed=1_760_000_001_000)
    read(report.render(story_of(Recording(), moments, make(Recording(), moments))))


def test_the_result_is_json_that_reads_back(result: Result) -> None:
    told = msgspec.json.decode(msgspec.json.encode(result), type=Result)
    assert (told.accuracy, told.phases, told.goals) == (result.accuracy, result.phases, result.goals)
    assert json.loads(msgspec.json.encode(result))["drift"]["features"] == ["brightness", "saturation"]


def test_names_at_the_right_edge_stand_in_rows_of_their_own() -> None:
    edge = charts.WIDTH
    placed = charts.in_rows([(100, "drift"), (edge - 120, "a bad candidate"), (edge - 20, "rolled back")])
    assert [row for _, _, row in placed] == [0, 0, 1]
