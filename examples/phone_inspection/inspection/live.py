"""What a person sees while the story goes on: a live view on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tidemill.core.clock import Clock, to_ms
from tidemill.events.records import Decision

from .factory import Counts
from .recording import Recording

__all__ = ["LiveScreen", "PlainScreen", "Screen", "bar", "open_screen", "sparkline"]

_WINDOW_MS = 4000
_BLOCKS = "▁▂▃▄▅▆▇█"
_COLOURS = ("cyan", "magenta", "yellow", "green")
_EVERY_S = 10.0


class Screen(Protocol):
    """Tells the story as it goes."""

    def __enter__(self) -> "Screen": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stage(self, name: str, what: str) -> None:
        """The next part of the story begins."""
        ...

    def note(self, text: str) -> None:
        """Something is done that a person could do."""
        ...

    def show(self, recording: Recording, counts: Counts | None) -> None:
        """How things stand; called often."""
        ...


def open_screen(console: Console, clock: Clock) -> Screen:
    """A live view on a terminal, else plain lines."""
    return LiveScreen(console, clock) if console.is_terminal else PlainScreen(console, clock)


class PlainScreen:
    """Lines: stages, decisions, and every ten seconds how things stand."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console, self._clock = console, clock
        self._begun = self._shown = clock.monotonic()
        self._told = 0

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def stage(self, name: str, what: str) -> None:
        """A line with the time."""
        self._line(f"● {name}: {what}")

    def note(self, text: str) -> None:
        """A line."""
        self._line(f"  {text}")

    def show(self, recording: Recording, counts: Counts | None) -> None:
        """New decisions; now and then, how things stand."""
        for one in recording.decisions[self._told :]:
            self._line(f"    {one.kind} {one.subject}: {one.reason}")
            self._told += 1
        if counts is not None and counts.answered and self._clock.monotonic() - self._shown >= _EVERY_S:
            self._shown = self._clock.monotonic()
            self._line(f"    {in_one_line(recording, counts, to_ms(self._clock.now()))}")

    def _line(self, text: str) -> None:
        self._console.print(f"{self._clock.monotonic() - self._begun:6.1f} s  {text}", markup=False, highlight=False)


class LiveScreen:
    """One view that is drawn anew: the stages so far, rates, accuracy, drift, traffic, the last decisions."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._clock, self._begun = clock, clock.monotonic()
        self._stages: list[tuple[float, str, str]] = []
        self._notes: list[str] = []
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._drawn = 0.0
        self._last: tuple[Recording, Counts | None] | None = None

    def __enter__(self) -> "LiveScreen":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def stage(self, name: str, what: str) -> None:
        """A line that stays."""
        self._stages.append((self._clock.monotonic() - self._begun, name, what))
        self._draw()

    def note(self, text: str) -> None:
        """The command that runs."""
        self._notes.append(text)
        self._draw()

    def show(self, recording: Recording, counts: Counts | None) -> None:
        """Draw four times a second."""
        self._last = (recording, counts)
        if self._clock.monotonic() - self._drawn >= 0.25:
            self._draw()

    def _draw(self) -> None:
        self._drawn = self._clock.monotonic()
        parts: list[RenderableType] = [self._told()]
        if self._last is not None:
            parts += _standing(*self._last, to_ms(self._clock.now()))
        title = f"tidemill demo · {self._drawn - self._begun:.0f} s"
        self._live.update(Panel(Group(*parts), title=title, title_align="left", padding=(1, 2)), refresh=True)

    def _told(self) -> Table:
        told = Table.grid(padding=(0, 2))
        for number, (at, name, what) in enumerate(self._stages):
            now = number == len(self._stages) - 1
            mark = Text("●", style="bold yellow") if now else Text("✓", style="green")
            told.add_row(f"{at:5.0f} s", mark, Text(name, style="bold" if now else ""), Text(what, style="dim"))
        if self._notes:
            told.add_row("", "", "", Text(f"$ {self._notes[-1].removeprefix('$ ')}", style="cyan"))
        return told


def in_one_line(recording: Recording, counts: Counts, now: int) -> str:
    """Rates, accuracy and traffic in one line."""
    share, answers = recording.accuracy(now - _WINDOW_MS, now)
    rate = f"{answers / (_WINDOW_MS / 1000):.0f} answers/s"
    accuracy = "no answers" if share is None else f"accuracy {share:.2f}"
    shares = recording.traffic[-1][1] if recording.traffic else {}
    traffic = ", ".join(f"{version} {weight} %" for version, weight in sorted(shares.items()) if weight)
    return f"{rate}, {accuracy}, {counts.events:,} events, traffic: {traffic or 'none'}"


def bar(shares: dict[str, int], width: int = 40) -> Text:
    """Shares of the traffic as a bar, a colour for each version, oldest first."""
    text = Text()
    coloured = [(*one, _COLOURS[number % len(_COLOURS)]) for number, one in enumerate(sorted(shares.items()))]
    for _, share, colour in coloured:
        text.append("█" * round(width * share / 100), style=colour)
    for version, share, colour in coloured:
        text.append(f"  {version} {share} %", style=colour)
    return text


def sparkline(values: Sequence[float]) -> str:
    """Values in [0, 1] as a line of blocks."""
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[min(top, max(0, round(value * top)))] for value in values)


def _standing(recording: Recording, counts: Counts | None, now: int) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    if counts is not None and counts.events:
        share, answers = recording.accuracy(now - _WINDOW_MS, now)
        rate = f"{answers / (_WINDOW_MS / 1000):.0f} pictures/s · {counts.events:,} events · {counts.labels:,} labels"
        grid.add_row("line", f"{rate} · {counts.accepted:,} accepted · {counts.rejected:,} rejected")
        line = sparkline([value for _, value in recording.moving_accuracy(_WINDOW_MS, 1000)][-60:])
        grid.add_row("accuracy", Text(f"{'-' if share is None else f'{share:.2f}'}  {line}", style=_style(share)))
    if recording.traffic:
        grid.add_row("traffic", bar(recording.traffic[-1][1]))
    drift = [signal for _, signal in recording.signals if signal.kind == "drift"]
    if drift:
        grid.add_row("drift", Text(drift[-1].message, style="yellow"))
    if recording.steps:
        grid.add_row("run", f"{recording.steps[-1].run}: {recording.steps[-1].step}")
    return [Text(), grid, Text(), *map(_decision, recording.decisions[-3:])]


def _style(share: float | None) -> Literal["", "green", "red"]:
    if share is None:
        return ""
    return "green" if share > 0.9 else "red"


def _decision(one: Decision) -> Text:
    text = Text(f"{one.kind} ", style="bold")
    text.append(one.subject, style="cyan")
    text.append(f"  {one.reason}", style="dim")
    text.truncate(160, overflow="ellipsis")
    return text
