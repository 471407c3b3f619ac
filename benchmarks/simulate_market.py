"""The electricity market: Tidemill's loop beside daily retraining, no retraining and River's adaptive random forest.

`full` is the example's own table (examples/electricity_market/README.md). `small` plays within the first quarter of the
rows, on which the settings were chosen: it shows that everything plays, and is no evidence.
"""

import os
import sys
from pathlib import Path

from benchmarks.report import Figure, Report, environment

from tidemill.spec.load import load

EXAMPLE = Path(__file__).parents[1] / "examples" / "electricity_market"
sys.path.insert(0, str(EXAMPLE))

from electricity.compare import Compared, compare  # noqa: E402 -- the path comes first
from electricity.rows import read_market  # noqa: E402

__all__ = ["run"]

QUARTER = 11_328
SIZES: dict[str, tuple[int | None, int, int]] = {"small": (QUARTER, 8_000, 1), "full": (None, QUARTER, 3)}
"""Rows that are read, the first scored one, and seeds."""


def run(size: str) -> Report:
    """Let all of them play."""
    import torch

    torch.set_num_threads(1)
    file = Path(os.environ.get("TIDEMILL_DATA", "")) / "elec.csv"
    rows, since, seeds = SIZES[size]
    figures = [Figure("electricity market", None, "", note="skipped: TIDEMILL_DATA has no elec.csv")]
    if os.environ.get("TIDEMILL_DATA") and file.is_file():
        market = read_market(file, load(EXAMPLE / "market.yaml"), rows=rows)
        figures = _figures(compare(market, since=since, seeds=seeds, say=lambda words: None), is_scored=rows is None)
    ran = {"rows": rows, "since": since, "seeds": seeds}
    return Report("simulate", "market", size, ran, figures, environment(("numpy", "torch", "river")))


def _figures(found: Compared, *, is_scored: bool) -> list[Figure]:
    figures = []
    for one in found.standings:
        of = one.accuracy
        note = f"{of.low:.4f} to {of.high:.4f} (95 %); {one.runs:g} runs, {one.refused:g} refused, {one.seconds:g} s"
        figures.append(Figure(f"accuracy: {one.name}", of.value, "of rows", note=note))
    for name, of in found.differences.items():
        figures.append(Figure(f"the loop less {name}", of.value, "", note=f"{of.low:+.4f} to {of.high:+.4f} (95 %)"))
    for goal, holds in found.goals.items():
        figures.append(Figure(goal, str(holds), "", goal if is_scored else "", holds if is_scored else None))
    return figures
