"""Rules of the loop: the watch for drift, and control."""

from collections.abc import Iterator
from functools import partial

from tidemill.core.telemetry import REST
from tidemill.spec.model import ContinualModel
from tidemill.watch.health.lines import ALWAYS, Grading, Limits, Line, graded
from tidemill.watch.health.scraped import Look

__all__ = ["drift", "loop"]


def drift(resource: ContinualModel, look: Look, limits: Limits) -> Iterator[Line]:
    """Whether drift is watched, for how much of what is watched that is promised, and how far it is."""
    if resource.spec.triggers.drift is None:
        return
    missing = look.silent("watch") or "the watch did not tell it"
    reference = look.value("watch", "tidemill_watch_reference")
    serves = look.value("control", "tidemill_control_champion_share_ratio") is not None
    if reference == 0 and not serves:
        reference, missing = None, "no version serves yet"
    yield graded(
        "drift is watched",
        None if reference is None else 1 - reference,
        "1 if not",
        Grading(bad=0),
        why="the version that serves has a reference" if reference else "the version that serves has no reference",
        do="retrain: a version's reference is made with it",
        about="drift-is-not-watched",
        missing=missing,
    )
    if reference or look.silent("watch"):
        yield from _watched(look, limits, missing)


def _watched(look: Look, limits: Limits, missing: str) -> Iterator[Line]:
    line = partial(graded, missing=missing)
    states = look.each("watch", "tidemill_watch_features", "state")
    short = sum(count for state, count in states.items() if state != "ok") if states else None
    why = ", ".join(f"{count:.0f} {state}" for state, count in states.items())
    do = "`tidemill describe` says of each how much more is needed"
    yield line("not promised", short, "features", Grading(warn=0), why=why, do=do, about="drift-is-not-watched")
    parts = look.each("watch", "tidemill_watch_evidence_ratio", "feature")
    parts.pop(REST, None)  # a sum, which is no evidence of anything
    name = max(parts, key=lambda one: parts[one], default="")
    do = "look at what comes in: at 1 it is an alarm, and a retraining where triggers say so"
    why = f"the most of anything watched: {name}"
    grading = Grading(warn=limits.evidence_warn)
    yield line("evidence of drift", parts.get(name), "of an alarm", grading, why=why, do=do, about="drift")
    closed = look.value("watch", "tidemill_watch_closed_timestamp_seconds", stream="inputs")
    lateness = look.value("watch", "tidemill_watch_lateness_seconds", stream="inputs")
    behind = look.now.at - closed - lateness if closed and lateness is not None else None
    flows = look.added("ingest", "tidemill_ingest_events_total")
    grading = Grading(warn=limits.watch_behind_warn_s, bad=limits.watch_behind_bad_s)
    if flows == 0:
        grading = Grading()
    yield graded(
        "watch behind",
        None if behind is None else max(0.0, behind),
        "s",
        grading,
        why="no event comes, so no tick is over" if flows == 0 else "behind events, beyond what allowedLateness asks",
        do="see whether events carry the right time, and whether the watch answers: its log",
        about="the-watch-is-behind",
        missing=missing if closed is None else "no tick is over yet",
    )


def loop(resource: ContinualModel, look: Look, limits: Limits) -> Iterator[Line]:
    """Whether control turns, and whether the champion has the traffic."""
    missing = look.silent("control") or "control has not taken a turn for this model yet"
    line = partial(graded, missing=missing)
    phases = look.each("control", "tidemill_control_phase", "phase")
    phase = next((name for name, on in phases.items() if on == 1), None)
    turned = look.value("control", "tidemill_control_turn_timestamp_seconds")
    age = None if turned is None else max(0.0, look.now.at - turned)
    grading = Grading(warn=limits.turn_age_warn_s, bad=limits.turn_age_bad_s)
    why, do = f"since the last turn that went well; phase {phase}", "its log says what fails: `tidemill status`"
    yield line("the loop's last turn", age, "s", grading, why=why, do=do, about="the-loop")
    took = look.value("control", "tidemill_control_turn_seconds")
    grading, why, do = Grading(warn=limits.turn_warn_s), "how long the last turn took", "see the registry and the proxy"
    yield line("a turn", took, "s", grading, why=why, do=do, about="the-loop")
    failures = look.value("control", "tidemill_control_failures")
    why, do = "turns in a row that failed", "its log says what fails: `tidemill status`"
    grading = Grading(warn=0, bad=limits.failures_bad - 1)
    yield line("turns failed", failures, "turns", grading, why=why, do=do, about="the-loop")
    troubles = look.value("control", "tidemill_control_troubles")
    why, do = "what could not be seen or done at the last turn", f"`tidemill describe {resource.metadata.name}`"
    yield line("troubles", troubles, "troubles", Grading(warn=0), why=why, do=do, about="the-loop")
    share = look.value("control", "tidemill_control_champion_share_ratio")
    is_short = share is not None and share < 1 and phase in {"Serving", "Watching"}
    yield graded(
        "champion's traffic",
        share,
        "share",
        Grading(bad=ALWAYS if is_short else None),
        why=f"of the requests, in phase {phase}",
        do="see whether its server is ready: `tidemill status`",
        about="the-loop",
        missing=look.silent("control") or "no version serves yet",
    )
