"""What watching costs: our votes and detectors beside Evidently and NannyML, each in a process of its own.

Computation alone, by processor time, with no report and no reading. Ours goes batch by batch from rows to a verdict per
window tick; the peers get the whole frame at once and say once (Evidently) or ten times (NannyML) whether it drifted.
Of two streams: a *quiet* one, ten rows of an entity in a tick, so that a million rows have a thousand verdicts; and a
*busy* one, a thousand rows of it, so that they have as many as NannyML says.
Evidently reads its reference anew in every run; NannyML fits it apart, as we build ours apart: neither is counted.
The peers live in `.peers/` (`make peers`); without it that is said, and nothing is compared.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.drift.data import BUSY_ROWS_A_VOTE, ENTITIES, ROWS_A_VOTE
from benchmarks.report import Figure, Report, environment

__all__ = ["run"]

PEERS = Path(".peers/bin/python")
COLUMNS, WIDE = 10, 1_000
SIZES = {"small": (100_000, 4_000), "full": (1_000_000, 1_000_000)}
"""Rows of 10 columns, and of 1,000."""
BATCH, BUSY_BATCH, WIDE_BATCH = 10_000, 50_000, 2_000
"""Rows of one commit of ingest; of a busy stream as many as it takes in in a second."""
MEMORY_MIB = 2_048
GOALS = {"evidently": 100, "nannyml": 2}
QUIET = {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
"""No benchmark calls home."""


def run(size: str) -> Report:
    """Run all and compare them."""
    rows, wide_rows = SIZES[size]
    quiet, busy = _watch(rows, COLUMNS, BATCH), _watch(rows, COLUMNS, BUSY_BATCH, BUSY_ROWS_A_VOTE)
    figures = _ours("quiet", quiet, rows, COLUMNS)
    figures += [one for one in _ours("busy", busy, rows, COLUMNS) if one.name != "peak memory"]  # it is the reference's
    figures += _peers({"quiet": quiet, "busy": busy}, rows)
    longer = _watch(2 * rows, COLUMNS, BATCH)
    grown = longer["peak_mib"] / quiet["peak_mib"]
    figures.append(Figure("memory, twice the rows", grown, "times", "≤ 1.1", grown <= 1.1, "constant memory"))
    wide = _watch(wide_rows, WIDE, WIDE_BATCH)
    figures += _ours("wide", wide, wide_rows, WIDE, goal=MEMORY_MIB)
    ran = {"rows": rows, "wide_rows": wide_rows, "entities": ENTITIES, "rows_a_vote": ROWS_A_VOTE, "batch": BATCH}
    ran |= {"busy_rows_a_vote": BUSY_ROWS_A_VOTE, "busy_batch": BUSY_BATCH}
    return Report("bench", "drift", size, ran, figures, environment(("numpy", "polars")))


def _watch(rows: int, columns: int, batch: int, rows_a_vote: int = ROWS_A_VOTE) -> dict[str, float]:
    return _child([sys.executable, "-m", "benchmarks.drift.ours", *map(str, (rows, columns, batch, rows_a_vote))])


def _ours(stream: str, found: dict[str, float], rows: int, columns: int, goal: float | None = None) -> list[Figure]:
    name, cells = f"tidemill, {stream}, {rows:,} x {columns:,}", rows * columns
    peak, watched = found["peak_mib"], f"{found['watched']:.0f} columns watched, {found['signals']:.0f} signals"
    return [
        Figure(name, found["votes"] + found["reduce"], "s of CPU", note=watched),
        Figure("of that votes", found["votes"] / cells * 1e9, "ns/value", note="in ingest"),
        Figure("of that reducer", found["reduce"] / cells * 1e9, "ns/value", note="in `tidemill watch`"),
        Figure("reference", found["reference"], "s of CPU", note="once a version, not counted above"),
        Figure("peak memory", peak, "MiB", f"≤ {goal:,}" if goal else "", peak <= goal if goal else None),
    ]


def _peers(ours: Mapping[str, dict[str, float]], rows: int) -> list[Figure]:
    if not PEERS.exists():
        return [Figure(peer, None, "s of CPU", note="skipped: `make peers` installs it") for peer in GOALS]
    figures = []
    for peer, goal in GOALS.items():
        found = _child([str(PEERS), "-m", "benchmarks.drift.peer", peer, str(rows), str(COLUMNS)])
        peak = found.pop("peak_mib")
        figures += [Figure(f"{peer}, {what}", seconds, "s of CPU") for what, seconds in found.items()]
        method, best = min(
            ((what, seconds) for what, seconds in found.items() if "fit" not in what), key=lambda x: x[1]
        )
        for stream, of in ours.items():
            name, ratio = f"{peer} / tidemill, {stream}", best / (of["votes"] + of["reduce"])
            figures.append(Figure(name, ratio, "times", f"≥ {goal}", ratio >= goal, f"its fastest: {method}"))
        figures.append(Figure(f"{peer}, peak memory", peak, "MiB", note="holds both frames"))
    return figures


def _child(argv: list[str]) -> dict[str, float]:
    own = os.environ | QUIET | {"PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=3600, env=own)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with status {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
