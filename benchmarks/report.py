"""What a benchmark, fault run or simulation found: a table for people, a file for programs."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table

__all__ = ["Figure", "Report", "environment", "save", "show"]


@dataclass(frozen=True)
class Figure:
    """One figure: a value with its unit and, where there is one, its goal and whether that holds."""

    name: str
    value: float | int | str | None
    unit: str
    goal: str = ""
    holds: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A whole run: what was run (sizes, seeds), where, and the figures."""

    kind: Literal["bench", "faults", "simulate"]
    name: str
    size: str
    ran: dict[str, Any]
    figures: Sequence[Figure]
    environment: dict[str, Any] = field(default_factory=dict)
    started_at: str = ""
    took_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every goal holds."""
        return all(figure.holds is not False for figure in self.figures)


def environment(packages: Sequence[str] = ("numpy",)) -> dict[str, Any]:
    """The machine and the versions that figures depend on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{package: version(package) for package in packages},
    }


def save(report: Report, state: Path, *, started_at: datetime) -> Path:
    """Write `<state>/<kind>/<name>.json` and return its path."""
    path = state / report.kind / f"{report.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = msgspec.to_builtins(report) | {"started_at": started_at.isoformat(), "holds": report.holds}
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    partial.replace(path)
    return path


def show(report: Report, console: Console) -> None:
    """Print the figures as a table."""
    table = Table(title=f"{report.kind} {report.name}, size {report.size}", title_justify="left")
    for column in ("figure", "value", "unit", "goal", "holds", "note"):
        table.add_column(column, justify="right" if column == "value" else "left", overflow="fold")
    for figure in report.figures:
        value = f"{figure.value:,.4g}" if isinstance(figure.value, float) else str(figure.value)
        holds = {True: "yes", False: "NO", None: ""}[figure.holds]
        table.add_row(figure.name, value, figure.unit, figure.goal, holds, figure.note)
    console.print(table)
