"""`python -m benchmarks KIND [--only NAME] [--size small|full]`: runs `<kind>_<name>.py`, each by its `run(size)`.

Prints a table, writes `.tidemill/<kind>/<name>.json`, and ends with status 1 where a goal does not hold.
"""

import argparse
import importlib
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.report import Report, save, show
from rich.console import Console

from tidemill.core.clock import SystemClock
from tidemill.core.settings import load_settings

WIDTH = 200
"""Columns of the table where it goes to a file."""
KINDS = ("bench", "faults", "simulate")


def names(kind: str) -> list[str]:
    """The runs there are of a kind."""
    return sorted(
        path.stem.removeprefix(f"{kind}_").replace("_", "-") for path in Path(__file__).parent.glob(f"{kind}_*.py")
    )


def main(arguments: list[str]) -> int:
    """Run what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--only", default="", help="one of the names; all where it is empty")
    parser.add_argument("--size", choices=("small", "full"), default="small")
    asked = parser.parse_args(arguments)
    known = names(asked.kind)
    if asked.only and asked.only not in known:
        parser.error(f"there is no {asked.kind} {asked.only}; there are: {', '.join(known) or 'none yet'}")
    settings, _ = load_settings()
    console, clock, all_hold = Console(), SystemClock(), True
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for name in [asked.only] if asked.only else known:
        module = importlib.import_module(f"benchmarks.{asked.kind}_{name.replace('-', '_')}")
        started_at, begun = clock.now(), clock.monotonic()
        found: Report = module.run(asked.size)
        report = replace(found, took_s=round(clock.monotonic() - begun, 1))
        show(report, console)
        path = save(report, settings.state, started_at=started_at)
        console.print(f"{path}  ({report.took_s:g} s)")
        all_hold = all_hold and report.holds
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
