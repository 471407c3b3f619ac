"""The demo's report: one HTML page that needs nothing else. Charts are SVG, pictures are data.

`render(story)` is pure; what a story holds stands in `inspection.demo`.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 920, 54, 14
"""Pixels of every chart, and the margins of its plot."""

NOTHING = ""
COLOURS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)", "var(--e)")

STYLE = """
:root { --ink:#1c2733; --soft:#5d6b7a; --line:#dfe5ea; --page:#f7f9fa; --card:#fff; --good:#137a4b; --bad:#b3261e;
  --a:#1f6f8b; --b:#d07a1f; --c:#7a4fa3; --d:#3c8d40; --e:#b2476b; --band:#fff1d6 }
@media (prefers-color-scheme: dark) { :root { --ink:#e3e9ee; --soft:#93a1ae; --line:#2c3843; --page:#12181e;
  --card:#1a222a; --good:#56c48c; --bad:#ff8a80; --a:#5db8d6; --b:#f0a550; --c:#b793dd; --d:#7ccb80; --e:#e58aa8;
  --band:#3a2f1a } }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui,sans-serif }
main { max-width:980px; margin:0 auto; padding:32px 20px 64px }
h1 { font-size:28px; margin:0 0 4px } h2 { font-size:18px; margin:0 0 4px }
p { margin:0 0 10px; color:var(--soft) }
section { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:18px 20px; margin-top:18px }
svg { display:block; width:100%; height:auto } svg text { font:11px system-ui,sans-serif; fill:var(--soft) }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin-top:18px }
.tile { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:12px 16px }
.tile b { display:block; font-size:26px; line-height:1.2 } .tile span { color:var(--soft); font-size:13px }
table { border-collapse:collapse; width:100%; font-size:14px }
td,th { text-align:left; vertical-align:top; padding:6px 10px 6px 0; border-top:1px solid var(--line) }
th { color:var(--soft); font-weight:500; border-top:0 } td.n { white-space:nowrap; font-variant-numeric:tabular-nums }
.yes { color:var(--good) } .no { color:var(--bad) }
.scroll { overflow-x:auto } .shots { display:flex; gap:10px; flex-wrap:wrap } figure { margin:0; width:132px }
figure svg { border-radius:6px; width:132px; height:132px } figcaption { font-size:12px; color:var(--soft) }
.key { display:inline-block; margin:0 14px 6px 0; font-size:13px; color:var(--soft) }
.key i { display:inline-block; width:10px; height:10px; border-radius:2px; margin-right:5px }
"""


def render(story: Mapping[str, Any]) -> str:
    """The page of one demo."""
    result = story["result"]
    sections = [
        _tiles(result),
        _section(
            "Accuracy",
            "Share of right answers by the moment of the answer: the class, and for a scratch its box.",
            _accuracy(story),
        ),
        _section("Traffic", "Shares of the requests by version, as the proxy showed them.", _traffic(story)),
        _section("Drift", "When each statistic was found to have moved, and how.", _signals(story)),
        _section("Where the time went", "", _phases(result)),
        _section("What the model saw", "Dashed: the truth. Solid: the answer.", _pictures(story)),
        _section("Decisions", "Everything control decided, with its reason.", _decisions(story)),
        _section("Goals", "Measured in this run.", _goals(story)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tidemill: phone inspection</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main><h1>Phone inspection</h1><p>{_lead(result)}</p>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _lead(result: Mapping[str, Any]) -> str:
    if "bad_candidate" not in result:
        return "A stationary run: the light stayed as it was, and nothing was to be done."
    return (
        "The light at the stations changed; the drift was found, a new version was trained, tried on a growing share "
        "of the traffic and promoted. Then a bad candidate was forced past its gates, and rolled back on its labels."
    )


def _tiles(result: Mapping[str, Any]) -> str:
    accuracy, bad = result.get("accuracy", {}), result.get("bad_candidate", {})
    drift = result.get("drift", {})
    shown = [
        (_share(accuracy.get("before")), "accuracy before"),
        (_share(accuracy.get("drifted")), "in the changed light"),
        (_share(accuracy.get("after")), "after the promotion"),
        (_seconds(drift.get("detected_after_s")), "until the drift was found"),
        (_seconds(result.get("promoted_after_s")), "from change to 100 %"),
        (_percent(bad.get("max_share")), "most traffic a bad candidate got"),
        (_number(result.get("lost")), "events, predictions or labels lost"),
    ]
    tiles = (f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in shown if value != NOTHING)
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _section(title: str, text: str, body: str) -> str:
    if not body:
        return ""
    lead = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>"


class _Plot:
    """A chart with seconds on its x axis and 0 to 1 on its y axis."""

    def __init__(self, story: Mapping[str, Any], height: int) -> None:
        points = [point["t"] for key in ("accuracy", "traffic", "signals", "marks") for point in story.get(key, ())]
        self.start, self.end = min(points, default=0.0), max(points, default=1.0)
        self.height, self.parts = height, list[str]()
        self._axes()
        self._marks(story.get("marks", ()))

    def x(self, t: float) -> float:
        return LEFT + (t - self.start) / max(self.end - self.start, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return 34 + (1 - value) * (self.height - 34 - 22)

    def _axes(self) -> None:
        for value in (0, 0.25, 0.5, 0.75, 1):
            y = self.y(value)
            self.parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="var(--line)"/>')
            self.parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.0%}</text>')
        step = next((s for s in (10, 20, 30, 60, 120, 300) if (self.end - self.start) / s <= 12), 600)
        for t in range(int(-(-self.start // step) * step), int(self.end) + 1, step):
            self.parts.append(f'<text x="{self.x(t):.1f}" y="{self.height - 6}" text-anchor="middle">{t} s</text>')

    def _marks(self, marks: Sequence[Mapping[str, Any]]) -> None:
        # Two rows, so that names of marks close together do not cover each other.
        for place, mark in enumerate(sorted(marks, key=lambda mark: mark["t"])):
            x, name = self.x(mark["t"]), escape(mark["name"])
            anchor, dx = ("end", -4) if x > WIDTH - 160 else ("start", 4)
            self.parts.append(
                f'<path d="M{x:.1f} 8V{self.y(0):.1f}" stroke="var(--b)" stroke-dasharray="3 3"/>'
                f'<text x="{x + dx:.1f}" y="{14 + 13 * (place % 2)}" text-anchor="{anchor}">{name}</text>'
            )

    def svg(self, label: str) -> str:
        body = "".join(self.parts)
        return f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _accuracy(story: Mapping[str, Any]) -> str:
    points = [point for point in story.get("accuracy", ()) if point.get("n")]
    if not points:
        return ""
    plot = _Plot(story, 280)
    line = " ".join(f"{plot.x(point['t']):.1f},{plot.y(point['accuracy']):.1f}" for point in points)
    plot.parts.append(
        f'<polyline points="{line}" fill="none" stroke="var(--a)" stroke-width="2.2" stroke-linejoin="round"/>'
    )
    return plot.svg("accuracy over time")


def _traffic(story: Mapping[str, Any]) -> str:
    points = story.get("traffic", ())
    if not points:
        return ""
    plot = _Plot(story, 220)
    versions = list(dict.fromkeys(version for point in points for version in point["shares"]))
    for colour, version in zip(_cycled(len(versions)), versions, strict=True):
        path, last = "", None
        for point in points:
            share = point["shares"].get(version, 0) / 100
            x, y = plot.x(point["t"]), plot.y(share)
            path += f"M{x:.1f} {y:.1f}" if last is None else f"H{x:.1f}" + (f"V{y:.1f}" if share != last else "")
            last = share
        path += f"H{plot.x(plot.end):.1f}"
        plot.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
    keys = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(version)}</span>'
        for colour, version in zip(_cycled(len(versions)), versions, strict=True)
    )
    return keys + plot.svg("traffic shares over time")


def _signals(story: Mapping[str, Any]) -> str:
    rows = (
        f'<tr><td class="n">{signal["t"]:.1f} s</td><td>{escape(signal["message"])}</td>'
        f'<td class="n">{signal["evidence"]:.3g}</td><td class="n">{escape(signal["version"])}</td></tr>'
        for signal in story.get("signals", ())
    )
    return _table(("when", "what moved", "evidence (alarm at 1)", "against the data of"), rows)


def _phases(result: Mapping[str, Any]) -> str:
    phases = {name: float(value) for name, value in result.get("phases", {}).items() if value is not None}
    if not phases:
        return ""
    longest, bar = max(phases.values()), 22
    parts = []
    for place, (name, seconds) in enumerate(phases.items()):
        y, width = 4 + bar * place, max(1.0, (WIDTH - 330) * seconds / max(longest, 1e-9))
        label = escape(name.removesuffix("_s").replace("_", " "))
        parts.append(
            f'<text x="250" y="{y + 13}" text-anchor="end">{label}</text>'
            f'<rect x="260" y="{y + 3}" width="{width:.1f}" height="{bar - 8}" rx="3" fill="var(--a)"/>'
            f'<text x="{266 + width:.1f}" y="{y + 13}">{seconds:.1f} s</text>'
        )
    height = 8 + bar * len(phases)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="time of each phase">{"".join(parts)}</svg>'


def _pictures(story: Mapping[str, Any]) -> str:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for picture in story.get("pictures", ()):
        groups.setdefault(picture["when"], []).append(picture)
    blocks = (
        f'<p style="margin-top:10px">{escape(when)}</p><div class="shots">{"".join(map(_figure, shots))}</div>'
        for when, shots in groups.items()
    )
    return "".join(blocks)


def _figure(picture: Mapping[str, Any]) -> str:
    truth, answer = picture["truth"], picture["answer"]
    right = truth["class"] == answer["class"]
    boxes = _box(truth.get("box"), "#fff", "3 2") + _box(answer.get("box"), "#ffb000", "")
    caption = f"{answer['class']}, {answer['confidence']:.0%} sure"
    mark = "" if right else f'<br><span class="no">truth: {escape(truth["class"])}</span>'
    return (
        f'<figure><svg viewBox="0 0 64 64"><image href="data:image/jpeg;base64,{picture["jpeg"]}" width="64" '
        f'height="64"/>{boxes}</svg><figcaption>{escape(caption)}{mark}</figcaption></figure>'
    )


def _box(box: Sequence[float] | None, colour: str, dashes: str) -> str:
    if not box:
        return ""
    x0, y0, x1, y1 = (float(side) for side in box)
    return (
        f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 0):.1f}" height="{max(y1 - y0, 0):.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="1" stroke-dasharray="{dashes}"/>'
    )


def _decisions(story: Mapping[str, Any]) -> str:
    rows = (
        f'<tr><td class="n">{decision["t"]:.1f} s</td><td class="n">{escape(decision["kind"])}</td>'
        f"<td>{escape(decision['reason'])}</td></tr>"
        for decision in story.get("decisions", ())
    )
    return _table(("when", "decision", "why"), rows)


def _goals(story: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><td>{escape(goal['goal'])}</td><td>{escape(str(goal['measured']))}</td>"
        f'<td class="{"yes" if goal["holds"] else "no"}">{"holds" if goal["holds"] else "does not hold"}</td></tr>'
        for goal in story.get("goals", ())
    )
    return _table(("goal", "measured", ""), rows)


def _table(head: Sequence[str], rows: Any) -> str:
    body = "".join(rows)
    if not body:
        return ""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><tr>{titles}</tr>{body}</table></div>'


def _cycled(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} s"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g} %"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"
