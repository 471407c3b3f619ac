"""The verdict: a pure function of plan, evidence and step, with its reason in words and figures at each exit.

Three kinds of evidence, each spending its own risk once (STATISTICS 2, "Promote", "Roll back"):

- one process over the whole rollout against "worse by the margin or more" promotes, at any step;
- one process over the whole rollout against "worse by no more than the margin" rolls back;
- one process per step against "worse by margin/√share or more" lets the rollout go on to the next step.

A threshold once crossed stays crossed: Ville's inequality bounds the chance that it is *ever* crossed.

Copies (`rollout.shadow`) feed the first two before any user is answered. What they show lets the candidate have its
first share, and no more: it is promoted once the third has shown of its answers to users, `minOutcomes` at least, that
they do no great harm.
"""

import math
from typing import Any, Literal

import msgspec

from tidemill.rollout.cells import Arm, Evidence
from tidemill.rollout.copies import PairEvidence
from tidemill.rollout.plan import READY_SHARE, RolloutPlan
from tidemill.spec.paths import MIRROR_HEADER

__all__ = ["Verdict", "VerdictKind", "judge", "judge_copies"]

LEAST_UNMARKED = 5
UNMARKED_SHARE = 0.02
"""Of the requests: so many answers to copies without their header are no accident."""

VerdictKind = Literal["go on", "promote", "roll back", "hold", "inconclusive"]


class Verdict(msgspec.Struct, frozen=True):
    """What the evidence says, why, and the figures behind it."""

    kind: VerdictKind
    reason: str
    figures: dict[str, Any] = {}
    about: str = ""
    """Of a hold: what it is about, the same words while the figures in `reason` change."""


def judge(plan: RolloutPlan, evidence: Evidence, step: int) -> Verdict:
    """The verdict in `step` (index into `plan.weights`, of which the last is no step but the promotion).

    Harm is looked at first: where the comparison itself is in doubt, rolling back costs a rollout, holding on
    costs users. Only without labels of known probability nothing is concluded at all.
    """
    figures = _figures(plan, evidence, step)
    if plan.control < 1:
        return Verdict("hold", _unknown_probability(plan), figures, "labels.control")
    doubt = _doubt(plan, evidence)
    if evidence.harm.reached(plan.risk):
        reason = f"{_arms(evidence)}; evidence of a harm above {plan.harm_margin:.3g} is {_e(evidence.harm.peak)}, "
        reason += f"{_e(1 / plan.risk)} was needed" + (f" (but {doubt.reason})" if doubt else "")
        return Verdict("roll back", reason, figures)
    if doubt:
        return msgspec.structs.replace(doubt, figures=figures)
    # Copies cannot show what its answers do to users: of those a test of their own says that they do no great harm.
    if evidence.promotion.reached(plan.risk) and plan.shadow and not _harms_no_user(plan, evidence, step):
        reason = f"{_pairs(evidence)}, and shown not to be worse; of its answers to users {_own(plan, evidence, step)}"
        return Verdict("inconclusive", reason, figures)
    if evidence.promotion.reached(plan.risk):
        reason = f"{_arms(evidence)}; evidence that it is not worse by {plan.promotion_margin:.3g} is "
        return Verdict("promote", reason + f"{_e(evidence.promotion.peak)}, {_e(1 / plan.risk)} was needed", figures)
    return _within_step(plan, evidence, step, figures)


def judge_copies(plan: RolloutPlan, evidence: Evidence) -> Verdict:
    """The verdict while the candidate answers copies: `go on` is to its first share."""
    figures, pairs = _figures(plan, evidence, 0) | {"weight": 0}, evidence.pairs
    # Not for one alone: somebody who tries the candidate's server by hand asks it without the header, too.
    if pairs.unmarked >= LEAST_UNMARKED and pairs.unmarked > UNMARKED_SHARE * pairs.requests:
        reason = f"{pairs.unmarked} answers of {plan.candidate.name} to copies are logged as if users had got them: "
        reason += f"what makes the copies does not send the header {MIRROR_HEADER} with them"
        return Verdict("roll back", reason, figures)
    if plan.control < 1:
        return Verdict("hold", _unknown_probability(plan), figures, "labels.control")
    told = f"{_pairs(evidence)}; evidence"
    if evidence.harm.reached(plan.risk):
        reason = f"{told} of a harm above {plan.harm_margin:.3g} is {_e(evidence.harm.peak)}, "
        return Verdict("roll back", reason + f"{_e(1 / plan.risk)} was needed", figures)
    if not plan.visible and pairs.requests and pairs.labelled < READY_SHARE * pairs.requests:
        share = f"only {pairs.labelled / pairs.requests:.1%} of the champion's outcomes have a label at "
        reason = share + f"{plan.age_ms / 1000:g} s, and no history tells how late labels come"
        return Verdict("hold", reason, figures, "label history")
    if evidence.promotion.reached(plan.risk):
        reason = f"{told} that it is not worse by {plan.promotion_margin:.3g} is {_e(evidence.promotion.peak)}, "
        return Verdict("go on", reason + f"{_e(1 / plan.risk)} was needed", figures)
    return Verdict("inconclusive", f"{_pairs(evidence)}; {_missing(plan, evidence)}", figures)


def _within_step(plan: RolloutPlan, evidence: Evidence, step: int, figures: dict[str, Any]) -> Verdict:
    found = evidence.of_step(step)
    if step == len(plan.weights) - 2:
        return Verdict("inconclusive", f"{_arms(evidence)}; {_missing(plan, evidence)}", figures)
    if found and _harms_no_user(plan, evidence, step):
        reason = f"{found.candidate} outcomes at {plan.weights[step]} %; evidence of no great harm "
        reason += f"(margin {plan.step_margin(step):.3g} at this share) is {_e(found.process.peak)}, "
        return Verdict("go on", reason + f"{_e(1 / plan.risk)} was needed", figures)
    return Verdict("inconclusive", f"{_own(plan, evidence, step)}; {_missing(plan, evidence)}", figures)


def _harms_no_user(plan: RolloutPlan, evidence: Evidence, step: int) -> bool:
    """Whether the step's own test has shown that there is no great harm at its share."""
    found = evidence.of_step(step)
    return found is not None and found.candidate >= plan.min_outcomes and found.process.reached(plan.risk)


def _own(plan: RolloutPlan, evidence: Evidence, step: int) -> str:
    """How far the step's own test is, in words."""
    found = evidence.of_step(step)
    outcomes, peak = (found.candidate, found.process.peak) if found else (0, 1.0)
    told = f"{outcomes} of {plan.min_outcomes} outcomes at {plan.weights[step]} %; evidence of no great harm "
    return f"{told}{_e(peak)} of {_e(1 / plan.risk)}"


def _doubt(plan: RolloutPlan, evidence: Evidence) -> Verdict | None:
    """Why the two arms cannot be compared, or None."""
    if evidence.log_ratio_peak >= -math.log(plan.ratio_alpha):
        counts = ", ".join(
            f"{one.requests[0]} of {sum(one.requests)} at {plan.weights[one.step]} %" for one in evidence.steps
        )
        reason = f"the candidate's share of the requests is not the one asked for ({counts})"
        return Verdict("hold", reason, about="sample ratio")
    if evidence.log_labelling_peak >= -math.log(plan.labelling_alpha):
        shares = f"{_labelled(evidence.candidate)} of the candidate's outcomes, {_labelled(evidence.champion)} of the "
        return Verdict("hold", f"labelling differs: {shares}champion's have a label at the same age", about="labelling")
    champion = evidence.champion
    if not plan.visible and champion.requests and champion.labelled < READY_SHARE * champion.requests:
        share = f"only {_labelled(champion)} of the champion's outcomes have a label at {plan.age_ms / 1000:g} s"
        return Verdict("hold", f"{share}, and no history tells how late labels come", about="label history")
    return None


def _unknown_probability(plan: RolloutPlan) -> str:
    return (
        f"labels.control is {plan.control:g}, so that which outcomes are labelled may depend on the answers; "
        "a verdict needs labels.control: 1.0 (promote or abort by hand)"
    )


def _missing(plan: RolloutPlan, evidence: Evidence) -> str:
    return (
        f"evidence to promote {_e(evidence.promotion.peak)}, to roll back {_e(evidence.harm.peak)}, "
        f"{_e(1 / plan.risk)} is needed"
    )


def _arms(evidence: Evidence) -> str:
    candidate, champion = evidence.candidate, evidence.champion
    if candidate.mean is None or champion.mean is None:
        return "no outcomes of both versions yet"
    return (
        f"error {candidate.mean:.3f} in {candidate.judged} outcomes of the candidate, {champion.mean:.3f} in "
        f"{champion.judged} of the champion, {evidence.blocks} matched blocks"
    )


def _pairs(evidence: Evidence) -> str:
    """What the copies showed, in words."""
    pairs = evidence.pairs
    if not pairs.requests:
        return "no outcomes of copied requests yet"
    missing, found = pairs.requests - pairs.answered, pairs.errors
    told = f"error {found[0]:.3f} in {pairs.judged} copies, {found[1]:.3f} of the champion's answers" if found else ""
    told = told or f"none of {pairs.requests} copied requests is judged yet"
    return told + (f", {missing} of {pairs.requests} copies without an answer that can be told" if missing else "")


def _labelled(arm: Arm) -> str:
    return f"{arm.labelled / arm.requests:.1%}" if arm.requests else "none"


def _e(value: float) -> str:
    return f"{value:.3g}" if value < 10_000 else "over 10,000"


def _figures(plan: RolloutPlan, evidence: Evidence, step: int) -> dict[str, Any]:
    found = evidence.of_step(step)
    candidate, champion = evidence.candidate, evidence.champion
    return {
        "weight": plan.weights[step],
        "candidate_outcomes": candidate.judged,
        "champion_outcomes": champion.judged,
        "candidate_error": candidate.mean,
        "champion_error": champion.mean,
        "blocks": evidence.blocks,
        "step_outcomes": found.candidate if found else 0,
        "e_promote": _finite(evidence.promotion.peak),
        "e_roll_back": _finite(evidence.harm.peak),
        "e_step": _finite(found.process.peak) if found else 1.0,
        "e_needed": 1 / plan.risk,
        "margin": plan.promotion_margin,
        "step_margin": plan.step_margin(step),
        "e_sample_ratio": _finite(math.exp(min(evidence.log_ratio_peak, 700))),
        "e_labelling": _finite(math.exp(min(evidence.log_labelling_peak, 700))),
        "late": evidence.late,
        "lost": evidence.lost,
        "maybe_lost": evidence.maybe_lost,
        **(_pair_figures(evidence.pairs) if plan.shadow else {}),
    }


def _pair_figures(pairs: PairEvidence) -> dict[str, Any]:
    candidate, champion = pairs.errors or (None, None)
    return {
        "copied_requests": pairs.requests,
        "copies_answered": pairs.answered,
        "copies_that_differ": pairs.differ,
        "copies_judged": pairs.judged,
        "copies_error": candidate,
        "copied_champion_error": champion,
    }


def _finite(value: float) -> float:
    return min(value, 1e300)  # JSON has no infinity
