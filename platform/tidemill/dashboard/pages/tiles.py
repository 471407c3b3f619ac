"""Pictures with their boxes: the model's answer dashed, what is true in one line."""

from collections.abc import Sequence
from html import escape

from nicegui import ui

from tidemill.dashboard.pages.parts import Text, badge, box
from tidemill.dashboard.pictures import Shown
from tidemill.dashboard.queries.browse import Box, Kind, Thing

__all__ = ["ANSWER", "OTHER", "TRUE", "boxes", "caption", "shot", "sure"]

ANSWER, OTHER, TRUE = "#ff9f2e", "#5aa2ff", "#21d4b4"
"""Colours of the boxes, on pictures of any light."""
_TONES: dict[Kind, str] = {
    "right": "good",
    "wrong": "bad",
    "missed": "bad",
    "false alarm": "bad",
    "confused": "bad",
    "box": "bad",
    "disputed": "warn",
    "unlabelled": "",
}
_WORDS: dict[Kind, str] = {"box": "box is off"}


def boxes(found: Sequence[tuple[Box | None, str, bool]], width: int) -> str:
    """Boxes as SVG: each with its colour and whether it is dashed. Numbers alone come from outside."""
    stroke = max(0.6, width / 90)
    dash = f'stroke-dasharray="{3 * stroke:.1f} {2 * stroke:.1f}"'
    return "".join(
        f'<rect x="{one[0]:.1f}" y="{one[1]:.1f}" width="{one[2] - one[0]:.1f}" height="{one[3] - one[1]:.1f}" '
        f'fill="none" stroke="{escape(colour)}" stroke-width="{stroke:.2f}" {dash if dashed else ""}/>'
        for one, colour, dashed in found
        if one is not None
    )


def shot(shown: Shown | None, found: Sequence[tuple[Box | None, str, bool]], about: str) -> None:
    """A picture with boxes over it; without one, a place that says so."""
    with box("tm-shot"):
        if shown is None:
            Text("no picture", "span")
            return
        made = ui.element("img")
        made.props["src"], made.props["alt"], made.props["loading"] = shown.source, about, "lazy"
        drawing = boxes(found, shown.width)
        if drawing:
            svg = f'<svg viewBox="0 0 {shown.width} {shown.height}" aria-hidden="true">{drawing}</svg>'
            ui.html(svg, sanitize=False, tag="div").style("position:absolute;inset:0")


def sure(thing: Thing) -> str:
    """How sure the answer was, after it."""
    return "" if thing.confidence is None else f" {thing.confidence:.2f}"


def caption(thing: Thing) -> None:
    """What was answered, how surely, and what is true."""
    with box("t"):
        Text(f"{thing.answer}{sure(thing)}", "strong")
        with box("tm-row"):
            badge(_WORDS.get(thing.kind, thing.kind), _TONES[thing.kind])
        if thing.label is not None:
            Text(f"true: {thing.label}")
        Text(thing.entity, classes="tm-dim")
