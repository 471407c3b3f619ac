"""What is fixed before a candidate gets its first request, and stands in the `start-rollout` decision.

A verdict's risk holds only for a test that was chosen before its data were seen. Whoever has the plan and the
outcomes from its offsets on computes the same evidence again.
"""

from typing import Literal

import msgspec

from tidemill.events.records import Outcome
from tidemill.stats.betting import BETS

__all__ = ["LABELLING_ALPHA", "RATIO_ALPHA", "READY_SHARE", "REQUEST", "SHADOW", "RolloutPlan", "Span", "Version"]

REQUEST = "request"
"""The cohort key of a rollout in which each request is assigned by chance."""
SHADOW = -1
"""The step of the spans in which the candidate answers copies of the requests, before its first share."""
READY_SHARE = 0.9
"""Share of its labels that each class must have at the age of a verdict (STATISTICS 2, Labels)."""
RATIO_ALPHA = 0.001
"""Probability of doubting a sample ratio that is right (STATISTICS 2, Unit)."""
LABELLING_ALPHA = 0.01
"""Probability of doubting that both arms are labelled alike where they are. Held rollouts cost a person's time,
missed differences a false promotion: hence between the sample ratio's 0.001 and the usual risk of 0.05."""


class Version(msgspec.Struct, frozen=True):
    """A version and where its files are."""

    name: str
    artifact: str


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate's way to full traffic, as decided at its start. Times are milliseconds.

    `visible` is, by class of the label, the share of its labels that is there at `age_ms`, from the champion's
    history; empty where that history has no labels. `offsets` are the next offsets of `.outcomes` by partition
    when the rollout started: nothing before them counts.
    """

    rollout: str
    candidate: Version
    champion: Version | None = None
    weights: tuple[int, ...]
    """Shares in percent, rising; the last is 100 and is the promotion."""
    cohort: str = REQUEST
    """What is assigned and counted: each request, or the key that this request header carries (`keyed`)."""
    metric: str = "error"
    margin: float
    risk: float
    min_outcomes: int
    bets: tuple[float, ...] = BETS
    window_ms: int
    """Length of a cell in time of prediction."""
    slack_ms: int
    """How far behind the newest an outcome may be and still fall into its cell."""
    age_ms: int
    visible: dict[str, float] = {}
    control: float = 1.0
    labelling_alpha: float = LABELLING_ALPHA
    ratio_alpha: float = RATIO_ALPHA
    error_guard: float = 0.02
    """Share of failed requests above the champion's that ends the rollout at once."""
    latency_guard_ms: float | None = None
    """99th percentile of the candidate's answers above which the rollout ends; None: any will do."""
    approval: bool = False
    """Whether a person must approve the candidate before its first step."""
    shadow: bool = False
    """Whether the candidate answers copies before its first step, and is judged on them (`tidemill.rollout.copies`)."""
    copies: dict[str, int] = {}
    """The next offsets of `.copies` by source when the rollout started."""
    copies_share: float = 1.0
    """Of the requests whose copies are held until their labels come, drawn without regard to any answer."""
    reverts: str = ""
    """Why this brings back the version before, without a test; empty: it is a candidate's way up."""
    started_at: int
    timeout_ms: int
    on_timeout: Literal["hold", "rollBack"] = "hold"
    ready_within_ms: int
    offsets: dict[int, int] = {}

    @property
    def keyed(self) -> bool:
        """Whether a key keeps its version, and counts once: its outcomes are no independent witnesses."""
        return self.cohort != REQUEST

    def unit_of(self, outcome: Outcome) -> str:
        """What is counted once: the outcome's key, where keys are and it has one, else its request."""
        return (outcome.cohort if self.keyed else None) or outcome.request_id or outcome.prediction_id

    @property
    def least_visible(self) -> float:
        """Visible share of the class whose labels come latest; 1 where nothing is known."""
        return min(self.visible.values(), default=1.0)

    @property
    def labelled_only(self) -> bool:
        """Whether the labelled outcomes stand for all: each class has at least 90 % of its labels at the age."""
        return self.least_visible >= READY_SHARE

    @property
    def promotion_margin(self) -> float:
        """The margin in what is visible at the age: an error whose label comes later looks like a success."""
        return self.margin if self.labelled_only else self.margin * self.least_visible

    @property
    def harm_margin(self) -> float:
        """The margin that visible harm must exceed: shrunk by the largest share visible, so as not to call it more."""
        return self.margin if self.labelled_only else self.margin * max(self.visible.values())

    def step_margin(self, step: int) -> float:
        """The margin of "no great harm" in a step of share w: margin/√w, of what is visible."""
        return self.promotion_margin / float((self.weights[step] / 100) ** 0.5)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which one step's share was seen at the proxy, [since, until) in milliseconds; open while None.

    Only predictions made in a span count: between the moment a weight is asked for and the moment it is seen,
    nobody knows with which probability a request was sent where.
    """

    step: int
    """Index into the plan's weights, or `SHADOW`."""
    weight: int
    since: int
    until: int | None = None

    def covers(self, moment: int) -> bool:
        """Whether a prediction of that time was made in this span."""
        return self.since <= moment and (self.until is None or moment < self.until)
