"""How a model's data and system are: from what its processes told to lines that a person can act on. Pure.

A line is `unknown` where what it needs was not told: a process that does not answer, a counter without a case, a
measurement that is too old. Unknown is never `ok`. The same conditions stand as alerts in manifests/prometheus, and
what to do about each in docs/how-to/watch-the-system.md, under the heading that `about` names.

    scraped   what the processes told at two moments
    lines     lines, states, limits
    system, inputs, answers, loop   the rules
"""

from tidemill.spec.model import ContinualModel
from tidemill.watch.health.answers import labels, serving
from tidemill.watch.health.inputs import events, features
from tidemill.watch.health.lines import LIMITS, Limits, Line, State, worst
from tidemill.watch.health.loop import drift, loop
from tidemill.watch.health.scraped import Look, Process, Scrape
from tidemill.watch.health.system import processes, waiting

__all__ = ["EXPECTED", "Limits", "Line", "Look", "Process", "Scrape", "State", "health", "worst"]

EXPECTED = ("control", "ingest", "outcomes", "watch")
"""Roles that every model has; and `serve`, once a version serves."""


def health(resource: ContinualModel, look: Look, limits: Limits = LIMITS) -> list[Line]:
    """Every line about a model, its processes first. The same scrapes give the same lines."""
    serves = look.value("control", "tidemill_control_champion_share_ratio") is not None
    expected = (*EXPECTED, "serve") if serves else EXPECTED
    rules = (events, features, labels, serving, drift, loop)
    return [
        *processes(look, limits, expected),
        *waiting(look),
        *(line for rule in rules for line in rule(resource, look, limits)),
    ]
