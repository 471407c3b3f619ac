"""The pages in a real browser against a live loop. The tests are a story: each goes on where the one before ended.

A run is started first: while it trains and its candidate waits for approval, the pages are looked at.
"""

import getpass
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FloatRect, Locator, Page, expect
from tests.dashboard.site import HOSTILE, MODEL, Site, mislabel, send_hostile

from tidemill.core.clock import from_ms
from tidemill.events.lake import LakeTable, table_uri
from tidemill.testing.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(900)]

Look = Callable[..., Page]
OF = f"/models/{MODEL}"
PAGES = {
    "/": "phone-inspection",
    OF: "What happened, and why",
    f"{OF}/rollout": "The two versions",
    f"{OF}/browse": "among the newest",
    f"{OF}/labels": "What to label next",
    f"{OF}/versions": "from scratch",
}
LIGHTS: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def labels_in_lake(site: Site, labeller: str) -> list[dict[str, Any]]:
    """What a labeller said, as the lake has it."""
    table = LakeTable(table_uri(site.settings.lake_uri, MODEL, "labels"))
    found = table.scan().filter(pl.col("labeller") == labeller).sort("available_at").collect()
    return [{**row, "value": json.loads(row["value"])} for row in found.iter_rows(named=True)]


def called_ok(site: Site, labeller: str) -> set[str]:
    """The events that a labeller called ok."""
    return {one["event_id"] for one in labels_in_lake(site, labeller) if one["value"]["defect"] == "ok"}


class Hand:
    """Clicks, and counts them."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks = page, 0

    def click(self, what: Locator) -> None:
        self.clicks += 1
        what.click()

    def button(self, name: str) -> None:
        self.click(self.page.get_by_role("button", name=name, exact=True))

    def choose(self, field: str, option: str) -> None:
        self.click(self.page.get_by_role("combobox", name=field, exact=True))
        self.click(self.page.get_by_role("option", name=option, exact=True))


def test_from_a_fall_of_accuracy_to_a_run_on_repaired_labels_in_fifteen_clicks(look: Look, site: Site) -> None:
    wrong = mislabel(site, "a-approver", "east", 40)
    hand = Hand(look("/", role="approver"))
    page = hand.page
    hand.click(page.get_by_role("link", name="phone-inspection"))
    expect(page.get_by_text("answers that came of age")).to_be_visible()
    hand.click(page.get_by_role("link", name="Browse"))
    hand.choose("station", "east")
    hand.choose("kind", "missed")
    expect(page.get_by_text(re.compile(r"^1 to 24 of (4\d|5\d)$"))).to_be_visible()
    hand.button("Choose several")
    hand.button("Choose all shown")
    hand.button("Older →")
    expect(page.get_by_text(re.compile(r"^25 to"))).to_be_visible()
    hand.button("Choose all shown")
    hand.button("ok")
    eventually(lambda: set(wrong) <= called_ok(site, "a-approver"), 60)
    hand.click(page.get_by_role("link", name="Overview"))
    hand.button("Retrain")
    dialog = page.locator(".tm-dialog")
    dialog.locator("textarea").fill("the labels of east are repaired")
    hand.click(dialog.get_by_role("button", name="Retrain"))
    expect(page.locator(".tm-events").get_by_text("start-run", exact=True).nth(1)).to_be_visible()
    assert hand.clicks <= 15
    eventually(lambda: site.status()["phase"] == "Retraining", 60)


@pytest.fixture(scope="module")
def other_light(site: Site) -> Iterator[None]:
    """The lamps are changed: a second line, in the new light."""
    line = site.line("run", "--seconds", "900", "--rate", "24", "--light", "changed", "--seed", "5")
    yield
    line.terminate()
    line.wait(60)


def test_drift_appears_without_a_reload(look: Look, request: pytest.FixtureRequest) -> None:
    page = look(OF)
    assert page.get_by_text("drift: brightness").count() == 0
    request.getfixturevalue("other_light")
    alarm = page.locator(".tm-head .tm-badge", has_text="drift:").first
    expect(alarm).to_be_visible()
    expect(page.locator(".tm-feature.alarm").first).to_be_visible()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_the_loop_as_it_is_in_any_light_and_width(look: Look, path: str) -> None:
    page = look(path)
    expect(page.get_by_text(PAGES[path]).first).to_be_visible()
    assert page.locator(".tm-state.bad").count() == 0
    for width in (1440, 1024):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for light in LIGHTS:
        page.emulate_media(color_scheme=light)
        expect(page.locator("body.body--dark")).to_have_count(int(light == "dark"))
        violations = Axe().run(page).response["violations"]
        serious = [one for one in violations if one["impact"] in {"serious", "critical"}]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == [], light


def test_the_page_of_a_version_tells_its_lineage_both_ways(look: Look, site: Site) -> None:
    page = look(f"{OF}/versions")
    page.locator(".tm-table a.tm-mono").last.click()
    lineage = page.locator(".tm-panel", has_text="Lineage")
    for kind in ("run", "snapshot", "predictions", "outcomes"):
        expect(lineage.get_by_role("cell", name=kind, exact=True)).to_be_visible()
    expect(page.get_by_text(site.status()["champion"]["version"]).first).to_be_visible()


def test_times_are_in_the_zone_of_who_looks(look: Look, site: Site) -> None:
    page = look(OF, timezone_id="Asia/Tokyo")
    expect(page.get_by_text("times in Asia/Tokyo")).to_be_visible()
    first = from_ms(site.status()["decisions"][0]["time"]).astimezone(ZoneInfo("Asia/Tokyo"))
    expect(page.locator(".tm-events time").last).to_have_text(first.strftime("%d %b %H:%M:%S"))


def test_what_means_harm_is_shown_as_text(look: Look, site: Site) -> None:
    send_hostile(site)
    eventually(lambda: labels_in_lake(site, HOSTILE[0]), 60)
    page = look(f"{OF}/browse")
    choice = page.locator(".q-select").first
    choice.click()
    for text in HOSTILE:
        expect(page.get_by_role("option", name=text, exact=True)).to_be_visible()
    page.get_by_role("option", name=HOSTILE[0], exact=True).click()
    tile = page.locator(".tm-tile").first
    expect(tile).to_contain_text(HOSTILE[0])
    tile.click()
    expect(page.locator(".tm-dialog")).to_contain_text(f"{HOSTILE[0]} too")
    labels = look(f"{OF}/labels")
    for text in HOSTILE:
        expect(labels.get_by_text(text, exact=True).first).to_be_visible()
    for shown in (page, labels):
        assert shown.locator("img[src='x']").count() == 0
        assert "49" not in shown.locator(".tm-page").inner_text().split()


def at_rest(image: Locator) -> FloatRect:
    """Where a picture is, once its dialog has stopped to open."""
    seen: list[FloatRect | None] = [None]

    def same() -> bool:
        seen.append(image.bounding_box())
        return seen[-1] == seen[-2]

    eventually(same, every_s=0.3)
    assert seen[-1] is not None
    return seen[-1]


def test_a_box_drawn_with_the_mouse_becomes_a_label_in_the_lake(look: Look, site: Site) -> None:
    page = look(f"{OF}/browse?kind=right", role="labeller")
    page.locator(".tm-tile").first.click()
    image = page.locator(".tm-canvas img")
    expect(image).to_be_visible()
    event = page.locator(".tm-dialog .tm-mono").first.inner_text().split(" · ")[0]
    place = at_rest(image)
    x, y, width = place["x"], place["y"], place["width"]
    page.mouse.move(x + width * 0.25, y + width * 0.25)
    page.mouse.down()
    page.mouse.move(x + width * 0.5, y + width * 0.5, steps=3)
    page.mouse.move(x + width * 0.75, y + width * 0.5, steps=3)
    page.mouse.up()
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Undo 1 label")).to_be_visible()
    (said,) = eventually(lambda: labels_in_lake(site, "a-labeller"), 60)
    assert (said["event_id"], said["value"]["defect"]) == (event, "scratch")
    assert said["value"]["box"] == pytest.approx([16, 16, 48, 32], abs=1)
    # It is sent already: taking it back says again what was true before.
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Undo 1 label").click()
    eventually(lambda: len(labels_in_lake(site, "a-labeller")) == 2, 60)


def test_many_labels_are_taken_back_before_they_are_sent(look: Look, site: Site) -> None:
    page = look(f"{OF}/browse?kind=right")
    page.get_by_role("button", name="Choose several").click()
    page.get_by_role("button", name="Choose all shown").click()
    page.get_by_role("button", name="scratch", exact=True).click()
    page.get_by_role("button", name="Undo 24 labels").click()
    expect(page.get_by_text("24 as before")).to_be_visible()
    assert labels_in_lake(site, getpass.getuser()) == []


def test_a_role_is_refused_what_it_may_not(look: Look) -> None:
    viewer = look(f"{OF}/browse?kind=right", role="viewer")
    assert viewer.get_by_role("button", name="Choose several").count() == 0
    viewer.locator(".tm-tile").first.click()
    expect(viewer.get_by_role("button", name="Save and go on")).to_be_disabled()
    assert viewer.locator(".tm-canvas").count() == 0
    labeller = look(OF, role="labeller")
    expect(labeller.get_by_role("button", name="Retrain")).to_be_disabled()
    expect(look(OF, role="approver").get_by_role("button", name="Retrain")).to_be_enabled()


@pytest.mark.usefixtures("other_light")
def test_approving_moves_a_rollout_that_waits(look: Look, site: Site) -> None:
    eventually(lambda: site.status().get("phase") == "AwaitingApproval", 600, every_s=1)
    assert look(f"{OF}/rollout", role="labeller").get_by_role("button", name="Approve").is_disabled()
    page = look(f"{OF}/rollout", role="approver")
    page.get_by_role("button", name="Approve").click()
    dialog = page.locator(".tm-dialog")
    dialog.locator("textarea").fill("the new light is learnt")
    dialog.get_by_role("button", name="Approve").click()
    expect(page.locator(".tm-step.now, .tm-step.done").first).to_be_visible()
    expect(page.get_by_text("approved by a-approver: the new light is learnt").first).to_be_visible()
    audit = (Path(site.settings.state) / "dashboard" / "audit.jsonl").read_text().splitlines()
    assert [one["by"] for one in map(json.loads, audit) if one["action"] == "approve"] == ["a-approver"] * 2
