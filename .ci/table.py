"""A table of the suites, from the result files of pytest: each run, failed, or skipped with its reason.

A suite is a folder under tests/; what `make check` runs of it is named `<folder> (slow)`. Fails if a suite
that is required (one name a line) did not run, failed, or left a test out.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree  # our own files


@dataclass
class Suite:
    """What became of one suite's tests."""

    tests: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    reasons: set[str] = field(default_factory=set)

    @property
    def state(self) -> str:
        """In a word."""
        if self.tests["failed"]:
            return "FAILED"
        if not self.tests["passed"]:
            return "skipped"
        return "run, some skipped" if self.tests["skipped"] else "run"


def read(folder: Path) -> dict[str, Suite]:
    """The suites of all result files in a folder."""
    suites: dict[str, Suite] = {}
    for file in sorted(folder.glob("*.xml")):
        for case in ElementTree.parse(file).iter("testcase"):  # noqa: S314
            place = case.get("classname", "").split(".")
            name = place[1] if len(place) > 1 else place[0]
            suite = suites.setdefault(name if file.stem == "test" else f"{name} (slow)", Suite())
            skipped = case.find("skipped")
            bad = case.find("failure") is not None or case.find("error") is not None
            suite.tests["failed" if bad else "passed" if skipped is None else "skipped"] += 1
            suite.seconds += float(case.get("time", 0))
            if skipped is not None:
                suite.reasons.add(skipped.get("message", "no reason given"))
    return suites


def show(suites: dict[str, Suite], required: list[str]) -> list[str]:
    """Print the table; the required suites that did not run whole."""
    print(f"\n{'suite':<24}{'':<20}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}  why")
    for name in sorted(suites.keys() | set(required)):
        suite = suites.get(name, Suite(reasons={"it was never started"}))
        counts = suite.tests
        figures = f"{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>9}{suite.seconds:>9.1f}"
        print(f"{name:<24}{suite.state:<20}{figures}  {'; '.join(sorted(suite.reasons))}".rstrip())
    return [name for name in required if name not in suites or suites[name].state != "run"]


def main(folder: str, required: str) -> None:
    """Read, show, and say with the exit status whether every required suite ran."""
    names = [line.strip() for line in Path(required).read_text().splitlines() if line.strip() and line[0] != "#"]
    missing = show(read(Path(folder)), names)
    if missing:
        sys.exit(f"required, but not run whole: {', '.join(missing)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
