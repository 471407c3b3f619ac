"""Charts, as ECharts takes them. Their colours are readable on light and dark alike: a canvas knows no style sheet."""

import math
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from tidemill.dashboard.queries.drift import FeatureDrift
from tidemill.dashboard.queries.quality import QualityPoint
from tidemill.dashboard.queries.rollout import RolloutView, TrailPoint

__all__ = ["Chart", "drift_bars", "quality_chart", "trail_chart"]


class Chart:
    """A chart that can be brought up to date. `size`: `small` or `tall`."""

    def __init__(self, options: dict[str, Any], size: str) -> None:
        self._chart = ui.echart(options).classes(f"tm-chart {size}")

    def show(self, options: dict[str, Any]) -> bool:
        """Show something else; always can."""
        if options != self._chart.options:
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.update()
        return True


_COLOURS = ("#12968a", "#4a7fe0", "#c77b1e", "#9a5bd0", "#cf4f6b", "#6b8f23")
_TEXT, _LINE, _GREY = "#7a8596", "rgba(128,140,160,.22)", "rgba(128,140,160,.45)"
_BAND = 0.16


def _base(**more: Any) -> dict[str, Any]:
    return {
        "animation": False,
        "textStyle": {"color": _TEXT, "fontFamily": "system-ui, sans-serif"},
        "aria": {"enabled": True},
        "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
        **more,
    }


def _axis(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "axisLine": {"lineStyle": {"color": _LINE}},
        "axisLabel": {"color": _TEXT, "hideOverlap": True},
        "splitLine": {"show": kind != "time" and kind != "category", "lineStyle": {"color": _LINE}},
        "axisTick": {"show": False},
        **more,
    }


def quality_chart(points: Sequence[QualityPoint]) -> dict[str, Any]:
    """The error of each version with its band; below it, what share of the answers has no label."""
    versions = list(dict.fromkeys(one.version for one in points))
    series: list[dict[str, Any]] = []
    for place, version in enumerate(versions):
        mine = [one for one in points if one.version == version]
        series += _banded(version, mine, _COLOURS[place % len(_COLOURS)])
    series.append(
        {
            "name": "unlabelled",
            "type": "bar",
            "xAxisIndex": 1,
            "yAxisIndex": 1,
            "barMaxWidth": 14,
            "itemStyle": {"color": _GREY},
            "data": _unlabelled(points),
        }
    )
    percent = {"color": _TEXT, "formatter": "{value} %"}
    return _base(
        legend={"data": [*versions, "unlabelled"], "top": 0, "textStyle": {"color": _TEXT}, "type": "scroll"},
        grid=[
            {"left": 48, "right": 14, "top": 34, "height": "54%"},
            {"left": 48, "right": 14, "bottom": 24, "height": "15%"},
        ],
        xAxis=[
            _axis("time", gridIndex=0, axisLabel={"show": False}),
            _axis("time", gridIndex=1),
        ],
        yAxis=[
            _axis("value", gridIndex=0, min=0, max=_reach(points), axisLabel=percent),
            _axis("value", gridIndex=1, min=0, max=100, interval=100, axisLabel=percent),
        ],
        axisPointer={"link": [{"xAxisIndex": "all"}]},
        series=series,
    )


def _reach(points: Sequence[QualityPoint]) -> float:
    """The end of the axis in percent: all errors are within it, and of very wide bands a part."""
    highs = sorted(one.high for one in points)
    wide = highs[len(highs) * 3 // 4] if highs else 1.0
    return min(100.0, math.ceil(110 * max(wide, *(one.error or 0 for one in points), 0.01)))


def _banded(version: str, mine: Sequence[QualityPoint], colour: str) -> list[dict[str, Any]]:
    """The line, and its band as two stacked areas: an invisible one up to the low end, and what is between."""
    known = [one for one in mine if one.error is not None]
    hidden = {"type": "line", "stack": version, "symbol": "none", "lineStyle": {"opacity": 0}, "silent": True}
    hidden |= {"tooltip": {"show": False}, "stackStrategy": "all"}
    is_banded = all(one.kind != "labelled only" for one in mine)
    bands = [
        {**hidden, "name": f"{version} low", "data": [[one.at, one.low * 100] for one in known]},
        {
            **hidden,
            "name": f"{version} band",
            "areaStyle": {"color": colour, "opacity": _BAND},
            "data": [[one.at, (one.high - one.low) * 100] for one in known],
        },
    ]
    line = {
        "name": version,
        "type": "line",
        "symbolSize": 5,
        "lineStyle": {"width": 2, "color": colour},
        "itemStyle": {"color": colour},
        "data": [[one.at, round((one.error or 0) * 100, 3)] for one in known],
    }
    return [*(bands if is_banded else []), line]


def _unlabelled(points: Sequence[QualityPoint]) -> list[list[float]]:
    found: dict[int, tuple[int, int]] = {}
    for one in points:
        outcomes, labelled = found.get(one.at, (0, 0))
        found[one.at] = outcomes + one.outcomes, labelled + one.labelled
    return [[at, round(100 * (1 - labelled / max(1, count)), 1)] for at, (count, labelled) in sorted(found.items())]


def drift_bars(one: FeatureDrift) -> dict[str, Any]:
    """What was usual beside what is now: the shares of the votes in each bin."""
    names = [bar.name for bar in one.bars]
    now = [None if bar.now is None else round(bar.now * 100, 2) for bar in one.bars]
    return _base(
        grid={"left": 2, "right": 2, "top": 8, "bottom": 4},
        xAxis=_axis("category", data=names, axisLabel={"show": False}),
        yAxis=_axis("value", show=False, min=0),
        series=[
            {
                "name": "reference, %",
                "type": "bar",
                "barGap": "-100%",
                "itemStyle": {"color": _GREY},
                "data": [round(bar.before * 100, 2) for bar in one.bars],
            },
            {
                "name": "now, %",
                "type": "bar",
                "barWidth": "42%",
                "itemStyle": {"color": _COLOURS[2] if one.state == "alarm" else _COLOURS[0]},
                "data": now,
            },
        ],
    )


def trail_chart(trail: Sequence[TrailPoint], view: RolloutView) -> dict[str, Any]:
    """The evidence on its way: to promote, to roll back, and where either is decided."""
    line = {"type": "line", "step": "end", "symbol": "none"}
    return _base(
        legend={"top": 0, "textStyle": {"color": _TEXT}, "data": ["to promote", "to roll back"]},
        grid={"left": 54, "right": 90, "top": 34, "bottom": 28},
        xAxis=_axis("time"),
        yAxis=_axis("log", min=0.5, max=max(100.0, view.needed * 5), name="evidence", nameTextStyle={"color": _TEXT}),
        series=[
            {
                **line,
                "name": "to promote",
                "lineStyle": {"width": 2.5, "color": _COLOURS[0]},
                "itemStyle": {"color": _COLOURS[0]},
                "data": [[one.at, round(max(0.5, one.promote), 3)] for one in trail],
                "markLine": {
                    "symbol": "none",
                    "silent": True,
                    "lineStyle": {"color": _COLOURS[2], "type": "dashed"},
                    "label": {"formatter": f"needed: {view.needed:g}", "color": _TEXT},
                    "data": [{"yAxis": view.needed}],
                },
            },
            {
                **line,
                "name": "to roll back",
                "lineStyle": {"width": 2.5, "color": _COLOURS[4]},
                "itemStyle": {"color": _COLOURS[4]},
                "data": [[one.at, round(max(0.5, one.roll_back), 3)] for one in trail],
            },
        ],
    )
