"""The demo's report: one HTML page that needs nothing else, no script and no request. Pure: from a story to text."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .charts import Timeline, colour, waterfall

__all__ = ["render"]

_STYLE = Path(__file__).with_name("report.css")
_NAMES = ("version 1", "version 2", "the bad candidate", "a later version")
_WHEN = {
    "before": "Before: normal light, version 1",
    "drifted": "The new light, still version 1",
    "after": "The new light, version 2",
}

Story = Mapping[str, Any]


def render(story: Story) -> str:
    """The page of one demo, from what `story_of` makes."""
    result = story["result"]
    sections = [
        _section(
            "What happened",
            "Accuracy is the share of right answers (the class, and for a scratch its box) among the pictures taken in "
            "the three seconds before. Shares of the traffic are what the proxy showed. The statistics are what was "
            "seen of the pictures as they came in; a dot is a drift signal.",
            _timeline(story),
        ),
        _section(
            "What the model saw",
            "The first answers of each part, as they came. White and dashed: the truth. Amber: the answer.",
            _pictures(story),
        ),
        _section("From the change of light to 100 %", "", _phases(result, "from the change of light to 100 %")),
        _section("The bad candidate", _bad_words(result), _phases(result, "bad candidate")),
        _section(
            "Goals", "Each measured in this run. A dash is shown only: it depends on the machine.", _goals(result)
        ),
        _section("Where the time went", "", _phases(result, "story")),
        _section("Drift signals", "What moved, when the log had it, against which version's data.", _signals(story)),
        _section("Decisions", "Everything that control decided, and why.", _decisions(story)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Tidemill: phone inspection</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE.read_text()}</style></head><body><main>{_head(result)}{_tiles(result)}{''.join(sections)}"
        f"<footer>{escape(_colophon(result))}</footer></main></body></html>\n"
    )


def _head(result: Story) -> str:
    if not result["drift_expected"]:
        title, lead = "Nothing changed, and nothing was done.", "A stationary run: the light stayed as it was."
    else:
        back = result["passed"]
        title = "The light changed. The model came back." if back else "The light changed. Not all went as it should."
        lead = _lead(result)
    return f'<header><p class="kicker">Tidemill · demo</p><h1>{title}</h1><p class="lead">{escape(lead)}</p></header>'


def _lead(result: Story) -> str:
    found, promoted = result["drift"]["detected_after_s"], result["promoted_after_s"]
    said = "The lamps at three stations became darker and warmer, with a glare."
    if found is not None:
        said += f" {found:.0f} s later drift was found in {_listed(result['drift']['features'])}"
        said += f"; {promoted:.0f} s after the change a new version had all traffic." if promoted is not None else "."
    bad = result["bad_candidate"]
    if bad["verdict"] == "roll back":
        said += f" A candidate with wrong labels, forced past its gates, got {bad['max_share']} % and was taken back."
    return said


def _tiles(result: Story) -> str:
    accuracy, bad = result["accuracy"], result["bad_candidate"]
    tiles = [
        (_percent(accuracy["before"]), "accuracy before", ""),
        (_percent(accuracy["drifted"]), "in the new light", "bad"),
        (_percent(accuracy["after"]), "with the new version", "good"),
        (_seconds(result["drift"]["detected_after_s"]), "until drift is found", ""),
        (_seconds(result["promoted_after_s"]), "until 100 %", ""),
        (f"{bad['max_share']} %" if bad["max_share"] is not None else "", "most for a bad candidate", ""),
        (f"{result['lost']}", "lost of all that was sent", "" if result["lost"] else "good"),
    ]
    shown = (
        f'<div class="tile {kind}"><b>{value}</b><span>{name}</span></div>' for value, name, kind in tiles if value
    )
    return f'<div class="tiles">{"".join(shown)}</div>'


def _timeline(story: Story) -> str:
    accuracy = [(point["t"], point["accuracy"]) for point in story["accuracy"]]
    if not accuracy:
        return ""
    steps = [(point["t"], point["shares"]) for point in story["traffic"]]
    versions = list(dict.fromkeys(version for _, shares in steps for version in shares))
    chart = Timeline(accuracy[0][0] - 5, accuracy[-1][0] + 2, _marks(story), _warm(story))
    chart.line(accuracy, height=190, name="accuracy")
    chart.shares(steps, versions, height=84, name="traffic")
    for name, points in story["statistics"].items():
        alarms = [one["t"] for one in story["signals"] if one["kind"] == "drift" and one["feature"] == name]
        chart.statistic([(p["t"], p["value"]) for p in points], height=42, name=name, alarms=alarms)
    keys = "".join(
        f'<span class="key"><i style="background:{colour(number)}"></i>'
        f"{_NAMES[min(number, 3)]} · {escape(version)}</span>"
        for number, version in enumerate(versions)
    )
    return f"<p>{keys}</p>{chart.svg('accuracy, traffic and image statistics over time')}"


def _marks(story: Story) -> list[tuple[float, str]]:
    return [(mark["t"], mark["name"]) for mark in story["marks"]]


def _warm(story: Story) -> tuple[float, float] | None:
    changed = [at for at, name in _marks(story) if name == "the light changes"]
    return (changed[0], float("inf")) if changed else None


def _pictures(story: Story) -> str:
    groups: dict[str, list[Story]] = {}
    for picture in story["pictures"]:
        groups.setdefault(picture["when"], []).append(picture)
    return "".join(
        f'<h3>{escape(_WHEN.get(when, when))}</h3><div class="shots">{"".join(map(_figure, shots))}</div>'
        for when, shots in groups.items()
    )


def _figure(picture: Story) -> str:
    truth, answer, wrong = picture["truth"], picture["answer"], not picture["right"]
    boxes = _box(truth["box"], "#ffffff", "3 2") + _box(answer.get("box"), "#ffb224", "none")
    why = f"the truth: {truth['class']}" if truth["class"] != answer["class"] else "the box is off"
    caption = f"{escape(answer['class'])}, {answer['confidence']:.0%}" + (
        f"<br><em>{escape(why)}</em>" if wrong else ""
    )
    return (
        f'<figure class="{"wrong" if wrong else "right"}"><svg viewBox="0 0 64 64" role="img" '
        f'aria-label="{escape(picture["station"])}"><image href="data:image/jpeg;base64,{picture["jpeg"]}" '
        f'width="64" height="64"/>{boxes}</svg><figcaption>{caption}</figcaption></figure>'
    )


def _box(box: Sequence[float] | None, stroke: str, dashes: str) -> str:
    if not box:
        return ""
    x0, y0, x1, y1 = (float(side) for side in box)
    return (
        f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 0):.1f}" height="{max(y1 - y0, 0):.1f}" fill="none" '
        f'stroke="{stroke}" stroke-width="1.1" stroke-dasharray="{dashes}"/>'
    )


def _phases(result: Story, part: str) -> str:
    found = [(one["name"], one["since_s"], one["seconds"]) for one in result["phases"] if one["part"] == part]
    return waterfall(found, f"time of each phase: {part}")


def _bad_words(result: Story) -> str:
    bad = result["bad_candidate"]
    if bad["verdict"] is None:
        return ""
    skipped = "Its gates were skipped, as was asked. " if bad["gates_skipped"] else ""
    return (
        "Returned phones, all of them scratched, had been entered as ok, and a candidate was trained on them. "
        f"{skipped}The verdict of the labelled outcomes: {bad['reason']}."
    )


def _goals(result: Story) -> str:
    rows = []
    for goal in result["goals"]:
        kind, word = ("yes", "holds") if goal["holds"] else (("no", "fails") if goal["fatal"] else ("shown", "-"))
        measured = escape(goal["measured"])
        rows.append(f'<tr><td>{escape(goal["name"])}</td><td>{measured}</td><td class="{kind}">{word}</td></tr>')
    return _table(("goal", "measured", ""), rows)


def _signals(story: Story) -> str:
    rows = [
        f'<tr><td class="n">{one["t"]:.1f} s</td><td>{escape(one["message"])}</td>'
        f'<td class="n">{escape(one["version"])}</td></tr>'
        for one in story["signals"]
    ]
    return _table(("when", "what", "against the data of"), rows)


def _decisions(story: Story) -> str:
    rows = [
        f'<tr><td class="n">{one["t"]:.1f} s</td><td class="n">{escape(one["kind"])}</td>'
        f'<td class="n">{escape(one["subject"])}</td><td>{escape(one["reason"])}</td></tr>'
        for one in story["decisions"]
    ]
    return _table(("when", "decision", "about", "why"), rows)


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    if not rows:
        return ""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><tr>{titles}</tr>{"".join(rows)}</table></div>'


def _section(title: str, text: str, body: str) -> str:
    if not body:
        return ""
    lead = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>"


def _colophon(result: Story) -> str:
    machine = result["machine"]
    return (
        f"Seed {result['seed']}, size {result['size']}. {result['total_s']:.0f} s in all on {machine['cores']} cores "
        f"({machine['system']}, Python {machine['python']}); at most {result['memory']['peak_gib']} GiB resident in "
        f"{result['memory']['processes']} processes; {result['disk']['state_mib']:.0f} MiB of state on disk."
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s"
