"""Rules of what comes out: answers, the log of them, and the labels that say whether they were right."""

from collections.abc import Iterator
from functools import partial

from tidemill.outcomes.telemetry import DELAYS
from tidemill.spec.model import ContinualModel
from tidemill.watch.health.lines import ALWAYS, NO_CASES, Grading, Limits, Line, graded, of_share
from tidemill.watch.health.scraped import Look

__all__ = ["labels", "serving"]

LABELLED_OF_CONTROL = 0.9
"""Share of labels.control below which labels do not come as they should: the last ones are still on their way."""


def labels(resource: ContinualModel, look: Look, limits: Limits) -> Iterator[Line]:
    """What is missing from the log, what waits for its label, and how labels come."""
    silent = look.silent("outcomes")
    line = partial(graded, missing=silent or "outcomes did not tell it")
    maturity = resource.spec.labels.maturity
    rate = look.rate("outcomes", "tidemill_outcomes_total")
    yield line(
        "outcomes written", rate, "per s", Grading(), why="first ones and corrections", do="", about="throughput"
    )
    yield _log_loss(look, limits)
    lag = look.value("outcomes", "tidemill_outcomes_lag_records")
    grading = Grading(warn=limits.outcomes_lag_warn, bad=limits.outcomes_lag_bad)
    do = "its log says what holds it up; labels and verdicts wait meanwhile"
    why = "predictions and labels not taken in yet"
    yield line("outcomes behind", lag, "records", grading, why=why, do=do, about="outcomes-are-behind")
    waiting = look.value("outcomes", "tidemill_outcomes_waiting_predictions")
    why = f"predictions younger than labels.maturity.after ({maturity.after.total_seconds():g} s)"
    yield line("waiting to be judged", waiting, "predictions", Grading(), why=why, do="", about="labels")
    searched = look.value("outcomes", "tidemill_labels_searched")
    why, do = "labels by event whose predictions are searched for in the lake", "see whether their event ids are right"
    grading = Grading(warn=limits.outcomes_lag_warn)
    yield line("labels searched for", searched, "labels", grading, why=why, do=do, about="labels")
    refused = look.share("outcomes", ("tidemill_labels_total", {"result": "refused"}), "tidemill_labels_total")
    yield of_share(
        "labels refused",
        refused,
        Grading(warn=limits.refused_labels_warn),
        do="the lake's table `labels` has each with its reason",
        about="labels",
        missing=silent or NO_CASES,
    )
    yield from _labelled(resource, look)


def _log_loss(look: Look, limits: Limits) -> Line:
    answered, lost, maybe = (
        look.value("outcomes", f"tidemill_predictions_{name}") for name in ("answered", "lost", "maybe_lost")
    )
    share = None
    if answered and lost is not None and maybe is not None:
        share = (lost + maybe) / answered
    return graded(
        "loss of the log",
        share,
        "share",
        Grading(warn=0, bad=limits.log_loss_bad),
        why="" if share is None else f"{lost:,.0f} known and ≤ {maybe:,.0f} more are missing, of {answered:,.0f} rows",
        do="estimates widen by it: see why servers were killed, or the brokers away for long",
        about="loss-of-the-log",
        missing=look.silent("outcomes") or "no prediction was judged yet",
    )


def _labelled(resource: ContinualModel, look: Look) -> Iterator[Line]:
    labels, missing = resource.spec.labels, look.silent("outcomes") or NO_CASES
    kind, whole = {"kind": "first"}, "tidemill_outcomes_total"
    total = look.value("outcomes", whole, **kind)
    named = look.value("outcomes", "tidemill_outcomes_labelled_total", **kind)
    share = None if not total or named is None else named / total
    too_few = share is not None and (share < LABELLED_OF_CONTROL * labels.control or share == 0)
    yield graded(
        "labelled",
        share,
        "share",
        Grading(warn=ALWAYS if too_few else None),
        why=f"of {total or 0:,.0f} outcomes at their first judgement; labels.control is {labels.control:g}",
        do="without labels there is no quality, no verdict and no retraining: docs/how-to/bring-labels.md",
        about="labels",
        missing=missing,
    )
    delay = look.quantile("outcomes", "tidemill_label_delay_seconds", 0.9)
    after = labels.maturity.after.total_seconds()
    yield graded(
        "label delay",
        None if delay is None else delay.value,
        "s",
        Grading(warn=_bucket(after), bad=_bucket(labels.maturity.horizon.total_seconds())),
        why="" if delay is None else f"90 % come within it; of {delay.of:,.0f} {delay.when}; judged after {after:g} s",
        do="raise labels.maturity.after, or bring labels sooner: those that come later are corrections",
        about="labels",
        missing=missing,
    )


def _bucket(seconds: float) -> float:
    """The bound of the bucket that a delay falls into: a quantile is known no better."""
    return next((bound for bound in DELAYS if bound >= seconds), float("inf"))


def serving(resource: ContinualModel, look: Look, limits: Limits) -> Iterator[Line]:
    """How many are answered, how fast, how many are not, and how many answers the log lacks."""
    missing = look.silent("serve") or NO_CASES
    rate = look.rate("serve", "tidemill_predictions_total")
    yield graded(
        "predictions", rate, "per s", Grading(), why="rows answered", do="", about="throughput", missing=missing
    )
    whole = "tidemill_predict_requests_total"
    for result, grading, words in (
        ("failed", Grading(warn=limits.failed_warn, bad=limits.failed_bad), "see the server's log: `tidemill status`"),
        ("refused", Grading(warn=limits.refused_warn), "the answer to a refused request says what is wrong with it"),
    ):
        share = look.share("serve", (whole, {"result": result}), whole)
        yield of_share(
            f"requests {result}", share, grading, cases="requests", do=words, about="errors", missing=missing
        )
    # A server that hangs or is gone counts nothing: the proxy does.
    share = look.share("control", ("tidemill_proxy_errors", {}), "tidemill_proxy_requests")
    yield of_share(
        "requests failed at the proxy",
        share,
        Grading(warn=limits.failed_warn, bad=limits.failed_bad),
        cases="requests",
        do="see whether the model's servers are up and answer: `tidemill status`",
        about="errors",
        missing=look.silent("control") or NO_CASES,
    )
    p99 = look.quantile("serve", "tidemill_predict_seconds", 0.99)
    yield graded(
        "latency",
        None if p99 is None else p99.value,
        "s",
        Grading(warn=limits.latency_warn_s, bad=limits.latency_bad_s),
        why="" if p99 is None else f"99 % are answered within it, without HTTP; of {p99.of:,.0f} {p99.when}",
        do="see the machine's load, the model's size, and whether Redis is slow",
        about="latency",
        missing=missing,
    )
    dropped = look.value("serve", "tidemill_predictions_dropped_total")
    yield graded(
        "predictions dropped",
        dropped,
        "rows",
        Grading(bad=0),
        why="not written to the log by the servers that run now",
        do="the brokers were away for longer than the queue lasts",
        about="loss-of-the-log",
        missing=missing,
    )
