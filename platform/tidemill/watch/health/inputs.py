"""Rules of what comes in: events, quarantine, and the features that are served from them."""

from collections.abc import Iterator
from functools import partial

from tidemill.spec.model import ContinualModel
from tidemill.watch.health.lines import NO_CASES, Grading, Limits, Line, graded, of_share
from tidemill.watch.health.scraped import Look, Share

__all__ = ["events", "features"]


def events(resource: ContinualModel, look: Look, limits: Limits) -> Iterator[Line]:
    """How many come, how many wait, and how many are no good."""
    line = partial(graded, missing=look.silent("ingest") or "ingest did not tell it")
    rate = look.rate("ingest", "tidemill_ingest_events_total")
    yield line("events", rate, "per s", Grading(), why="taken in", do="", about="throughput")
    yield _lag(look, limits)
    stopped = look.most("ingest", "tidemill_ingest_stopped")
    above = resource.spec.events.quarantine.stop_above
    if stopped:
        why = f"ingest has stopped reading: more than {above:.0%} of the newest records are bad"
        do = "mend the resource or the sender: docs/how-to/replay-quarantine.md"
        yield line("ingest stopped", stopped, "1 if so", Grading(bad=0), why=why, do=do, about="quarantine")
    yield _quarantined(resource, look, limits)
    lost = look.value("ingest", "tidemill_ingest_lost_offsets_total")
    why = "offsets that the log dropped before ingest read them"
    do = "let the topic keep records longer than ingest may be down; those are gone"
    yield line("events lost", lost, "offsets", Grading(bad=0), why=why, do=do, about="events-lost")


def _lag(look: Look, limits: Limits) -> Line:
    what, unit, about = "ingest behind", "records", "ingest-is-behind"
    measured = look.most("ingest", "tidemill_ingest_lag_timestamp_seconds")
    lag = look.value("ingest", "tidemill_ingest_lag_records")
    missing = look.silent("ingest") or "no partition is read yet"
    if measured is not None and look.now.at - measured > limits.measured_s:
        lag, missing = None, f"measured {look.now.at - measured:.0f} s ago: the brokers did not answer since"
    taken = [look.rate("ingest", f"tidemill_ingest_{name}_total") for name in ("events", "quarantined")]
    pace = sum(one or 0.0 for one in taken)
    catch_up = None if not lag or not pace else lag / pace
    if lag and look.seconds > 0 and not pace:
        # The end of a quiet topic may be a transaction's mark, and a measurement is some seconds old.
        grading, why = Grading(warn=0, bad=1000), "nothing was taken in meanwhile"
    elif catch_up is not None:
        grading = Grading(
            warn=0 if catch_up > limits.catch_up_warn_s else None, bad=0 if catch_up > limits.catch_up_bad_s else None
        )
        why = f"at the present pace read in {catch_up:.0f} s"
    else:
        grading, why = Grading(), "all is read" if lag == 0 else "not read yet; the pace needs two looks"
    do = "add partitions and start more `tidemill ingest`, or see what holds it up: its log"
    return graded(what, lag, unit, grading, why=why, do=do, about=about, missing=missing)


def _quarantined(resource: ContinualModel, look: Look, limits: Limits) -> Line:
    bad = "tidemill_ingest_quarantined_total"
    share = look.share("ingest", (bad, {}), "tidemill_ingest_events_total", bad)
    above = resource.spec.events.quarantine.stop_above
    fields = look.each("ingest", bad, "field")
    field = max(fields, key=lambda name: fields[name]) if any(fields.values()) else ""
    most = f"; most often because of {field or 'the record as a whole'}" if any(fields.values()) else ""
    why = "" if share is None else f"of {share.of:,.0f} records {share.when}{most}"
    return graded(
        "quarantined",
        None if share is None else share.value,
        "share",
        Grading(warn=min(limits.quarantined_warn, above), bad=above),
        why=why,
        do=f"`tidemill quarantine list {resource.metadata.name}` shows them and why",
        about="quarantine",
        missing=look.silent("ingest") or NO_CASES,
    )


def features(resource: ContinualModel, look: Look, limits: Limits) -> Iterator[Line]:
    """How fresh online rows are, how reads of them go, and whether what was served is what the lake has."""
    declared = resource.spec.features
    yield from _freshness(resource, look, limits)
    if declared.windows:
        yield from _reads(look, limits)
    if declared.windows or declared.image:
        yield _skew(resource, look, limits)


def _freshness(resource: ContinualModel, look: Look, limits: Limits) -> Iterator[Line]:
    slo = resource.spec.features.freshness
    name = "tidemill_feature_freshness_seconds"
    age = {"events": float("nan")} | look.each("ingest", name, "view") | look.each("outcomes", name, "view")
    if slo is None:
        grading, why = Grading(warn=limits.freshness_warn_s), "the newest value's age; features.freshness is not said"
    else:
        allowed = slo.total_seconds()
        grading, why = Grading(bad=allowed), f"the newest value's age; features.freshness is {allowed:g} s"
    for view, seconds in age.items():
        yield graded(
            f"freshness of {view}",
            seconds,
            "s",
            grading,
            why=why,
            do="see whether events come, and whether ingest is behind",
            about="freshness",
            missing=look.silent("ingest") or "no row was written since ingest began",
        )


def _reads(look: Look, limits: Limits) -> Iterator[Line]:
    whole, missing = "tidemill_feature_reads_total", look.silent("serve") or NO_CASES
    gradings = {
        "NOT_FOUND": Grading(warn=limits.not_found_warn),
        "UNAVAILABLE": Grading(warn=0, bad=limits.unavailable_bad),
        "REBUILDING": Grading(warn=0),
        "OUTSIDE_MAX_AGE": Grading(warn=limits.not_found_warn),
    }
    words = {
        "NOT_FOUND": "entities that no event was taken in of",
        "UNAVAILABLE": "Redis did not answer in time; the answer went without",
        "REBUILDING": "rows that are being filled from the lake",
        "OUTSIDE_MAX_AGE": "entities whose last event is older than features.ttl",
    }
    for status, grading in gradings.items():
        share = look.share("serve", (whole, {"status": status}), whole)
        do = "see whether requests name the entities that events do, and whether Redis and ingest are up"
        yield of_share(
            f"online reads {status}",
            share,
            grading,
            cases="reads",
            said=f"{words[status]}; ",
            do=do,
            about="online-reads",
            missing=missing,
        )
    yield _nulls(look, limits, missing)


def _nulls(look: Look, limits: Limits, missing: str) -> Line:
    by_feature: dict[str, Share] = {}
    for feature in look.each("serve", "tidemill_feature_null_values_total", "feature"):
        part = ("tidemill_feature_null_values_total", {"feature": feature})
        share = look.share("serve", part, "tidemill_feature_reads_total")
        if share is not None:
            by_feature[feature] = share
    feature = max(by_feature, key=lambda name: by_feature[name].value, default="")
    found = by_feature.get(feature)
    return of_share(
        "null features",
        found,
        Grading(warn=limits.nulls_warn),
        cases="reads",
        said=f"the most of any feature: {feature}; ",
        do="a window without an event has no value: see its length, and whether the entity's events come",
        about="online-reads",
        missing=missing,
    )


def _skew(resource: ContinualModel, look: Look, limits: Limits) -> Line:
    name = "tidemill_feature_skew_predictions"
    checked = look.most("ingest", "tidemill_feature_skew_timestamp_seconds")
    value, missing = look.value("ingest", name, result="differing"), "not compared yet; ingest does it each hour"
    equal = look.value("ingest", name, result="equal")
    if checked is not None and look.now.at - checked > limits.skew_age_s:
        value, missing = None, f"last compared {(look.now.at - checked) / 3600:.0f} h ago"
    elif checked is None or (not value and not equal):
        value, missing = None, missing if checked is None else "none of the newest predictions was comparable"
    return graded(
        "skew",
        value,
        "predictions",
        Grading(bad=0),
        why="served features that differ from the lake's, of the newest predictions that were compared",
        do=f"`tidemill skew {resource.metadata.name}` shows which; `tidemill rebuild` fills the rows anew",
        about="skew",
        missing=look.silent("ingest") or missing,
    )
