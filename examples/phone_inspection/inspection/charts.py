"""Charts as SVG text, drawn from plain data; colours are the page's variables, so that they follow light and dark."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["WIDTH", "Timeline", "colour", "in_rows", "waterfall"]

WIDTH, LEFT, RIGHT = 1030, 92, 16
_MARK_ROW = 15

Points = Sequence[tuple[float, float]]


def colour(number: int) -> str:
    """The colour of the model's n-th version, from 0."""
    return f"var(--v{min(number, 3) + 1})"


class Timeline:
    """Panels below each other that share one axis of seconds, with the same marks through all of them.

    Args:
        since: first second shown.
        until: last second shown.
        marks: seconds and names.
        warm: from when until when the background is shaded, if ever.
    """

    def __init__(
        self, since: float, until: float, marks: Sequence[tuple[float, str]], warm: tuple[float, float] | None = None
    ) -> None:
        self._since, self._until = since, max(until, since + 1)
        self._marks = in_rows([(self.x(at), name) for at, name in sorted(marks) if since <= at <= self._until])
        rows = 1 + max((row for _, _, row in self._marks), default=-1)
        self._top = self._bottom = 8.0 + _MARK_ROW * rows
        self._warm = warm
        self._parts: list[str] = []

    def x(self, second: float) -> float:
        """Where a second is."""
        return LEFT + (second - self._since) / (self._until - self._since) * (WIDTH - LEFT - RIGHT)

    def line(self, points: Points, *, height: float, name: str, low: float = 0.0, high: float = 1.0) -> None:
        """A panel with one curve and its area, in percent."""
        top, y = self._panel(height, name, low, high)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            self._grid(y(share), f"{share:.0%}")
        if points:
            path = _path([(self.x(at), y(value)) for at, value in points])
            first, last = self.x(points[0][0]), self.x(points[-1][0])
            under = f"{path}L{last:.1f} {top + height:.1f}L{first:.1f} {top + height:.1f}Z"
            self._parts.append(f'<path d="{under}" fill="{colour(1)}" opacity=".12"/>')
            self._parts.append(f'<path d="{path}" fill="none" stroke="{colour(1)}" stroke-width="2.2"/>')

    def shares(
        self, steps: Sequence[tuple[float, Mapping[str, int]]], versions: Sequence[str], *, height: float, name: str
    ) -> None:
        """A panel with stacked shares in percent, the first version at the bottom."""
        _, y = self._panel(height, name, 0.0, 1.0)
        for share in (0.0, 0.5, 1.0):
            self._grid(y(share), f"{share:.0%}")
        ends = [at for at, _ in steps[1:]] + [self._until]
        for (at, shares), end in zip(steps, ends, strict=True):
            begin, over, below = max(at, self._since), min(end, self._until), 0.0
            for number, version in enumerate(versions):
                share = shares.get(version, 0) / 100
                if share and over > begin:
                    self._rectangle(begin, over, y(below + share), y(below), colour(number), version)
                below += share

    def statistic(self, points: Points, *, height: float, name: str, alarms: Sequence[float]) -> None:
        """A low panel with one curve at its own scale, and a dot for each alarm."""
        values = [value for _, value in points] or [0.0, 1.0]
        low, high = min(values), max(values)
        margin = (high - low or abs(high) or 1.0) * 0.12
        _, y = self._panel(height, name, low - margin, high + margin)
        self._text(LEFT - 10, y(high) + 4, f"{high:.3g}", "end")
        self._text(LEFT - 10, y(low) + 4, f"{low:.3g}", "end")
        path = _path([(self.x(at), y(value)) for at, value in points])
        self._parts.append(f'<path d="{path}" fill="none" stroke="{colour(0)}" stroke-width="1.6"/>')
        for at in alarms:
            value = min(points, key=lambda point: abs(point[0] - at))[1] if points else low
            self._parts.append(f'<circle cx="{self.x(at):.1f}" cy="{y(value):.1f}" r="4.5" fill="var(--mark)"/>')

    def svg(self, label: str) -> str:
        """The whole, with its axis and marks."""
        bottom = self._bottom + 22
        back = []
        if self._warm is not None:
            begin, end = (self.x(min(max(at, self._since), self._until)) for at in self._warm)
            box = (
                f'x="{begin:.1f}" y="{self._top:.1f}" width="{end - begin:.1f}" height="{self._bottom - self._top:.1f}"'
            )
            back.append(f'<rect {box} fill="var(--warm)"/>')
        lines = [_mark(x, row, name, self._bottom) for x, name, row in self._marks]
        self._axis(bottom)
        body = "".join([*back, *self._parts, *lines])
        return f'<svg viewBox="0 0 {WIDTH} {bottom:.0f}" role="img" aria-label="{escape(label)}">{body}</svg>'

    def _panel(self, height: float, name: str, low: float, high: float) -> Any:
        top = self._bottom + 22
        self._text(LEFT, top - 7, name, "start", "name")
        self._bottom = top + height
        return top, lambda value: top + height * (1 - (value - low) / (high - low))

    def _grid(self, y: float, label: str) -> None:
        self._parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="var(--line)"/>')
        self._text(LEFT - 10, y + 4, label, "end")

    def _axis(self, y: float) -> None:
        span = self._until - self._since
        step = next((size for size in (5, 10, 20, 30, 60, 120) if span / size <= 14), 300)
        first = int(-(-self._since // step) * step)
        for second in range(first, int(self._until) + 1, step):
            self._text(self.x(second), y - 5, f"{second} s", "middle")

    def _rectangle(self, begin: float, end: float, top: float, bottom: float, fill: str, title: str) -> None:
        x, width = self.x(begin), self.x(end) - self.x(begin)
        box = f'x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}"'
        self._parts.append(f'<rect {box} fill="{fill}" opacity=".85"><title>{escape(title)}</title></rect>')

    def _text(self, x: float, y: float, text: str, anchor: str, kind: str = "") -> None:
        self._parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')


def waterfall(phases: Sequence[tuple[str, float, float]], label: str) -> str:
    """Bars that begin where the one before ends: names, seconds at which they begin, and how long they take."""
    if not phases:
        return ""
    names, bar = 218, 23
    since = min(begin for _, begin, _ in phases)
    span = max(begin + seconds for _, begin, seconds in phases) - since or 1.0
    room = WIDTH - names - 60
    parts = []
    for row, (name, begin, seconds) in enumerate(phases):
        y, x = 2 + bar * row, names + (begin - since) / span * room
        width = max(2.0, seconds / span * room)
        parts.append(
            f'<path d="M{names} {y + bar - 1}H{WIDTH}" stroke="var(--line)"/>'
            f'<text x="{names - 14}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{bar - 10}" rx="3" fill="{colour(1)}"/>'
            f'<text x="{x + width + 7:.1f}" y="{y + 15}">{seconds:.1f} s</text>'
        )
    height = 6 + bar * len(phases)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _path(points: Points) -> str:
    return "".join(f"{'L' if number else 'M'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))


def _mark(x: float, row: int, name: str, bottom: float) -> str:
    """A dashed line, and the name at its top: to its left where there is no room to its right."""
    y = 11 + _MARK_ROW * row
    side, gap = ("end", -4) if _span(x, name)[0] < x else ("start", 4)
    return (
        f'<path d="M{x:.1f} {y - 8}V{bottom:.1f}" stroke="var(--mark)" stroke-dasharray="2 3"/>'
        f'<text class="mark" x="{x + gap:.1f}" y="{y}" text-anchor="{side}">{escape(name)}</text>'
    )


def in_rows(marks: Sequence[tuple[float, str]]) -> list[tuple[float, str, int]]:
    """Marks with the row of their name: the first in which it touches no other."""
    ends: list[float] = []
    placed = []
    for x, name in marks:
        left, right = _span(x, name)
        row = next((number for number, end in enumerate(ends) if left >= end), len(ends))
        ends[row : row + 1] = [right]
        placed.append((x, name, row))
    return placed


def _span(x: float, name: str) -> tuple[float, float]:
    """About where a mark's name begins and ends: right of the mark, or left of it where the picture ends."""
    reach = 6.4 * len(name) + 14
    return (x - reach, x) if x + reach > WIDTH else (x, x + reach)
