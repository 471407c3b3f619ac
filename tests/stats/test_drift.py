"""The e-detectors: capital that does not grow without drift, alarms that cost M, evidence that is kept exactly."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.stats.drift import (
    BETS,
    BINS,
    MISSING,
    ROWS,
    Alarm,
    Detectors,
    DriftState,
    Missing,
    Watched,
    detectors,
    expected_votes,
    feature_evidence,
    grow,
    start,
    step,
)

SECOND = 1_000
PERIOD = 30 * 86_400 * SECOND
SHARES = tuple(k / BINS for k in range(BINS + 1))
EDGES = tuple(map(float, range(BINS + 1)))


def uniform(tolerance: float = 0.2, c_ref: float = 0.1, tau: float = 1.0, on: bool = True) -> Watched:
    """A feature whose reference is spread evenly over its bins."""
    return Watched(edges=EDGES, shares=SHARES, tolerance=tolerance, c_ref=c_ref, tau=tau, on=on)


def run(
    watched: Detectors, ticks: list[list[list[float]]], state: DriftState | None = None, *, period: float = PERIOD
) -> tuple[DriftState, list[tuple[int, int]]]:
    """Play ticks of votes by feature; returns the state and (tick, feature) of each alarm."""
    state = start(watched) if state is None else state
    first = max(int(state.updated.max()), 0) // SECOND
    alarms = []
    for number, tick in enumerate(ticks, start=first):
        below = np.array(
            [
                [sum(vote <= edge for vote in votes) for edge in edges]
                for votes, edges in zip(tick, watched.edges, strict=True)
            ]
        )
        counts = np.array([len(votes) for votes in tick], dtype=np.float64)
        state, found = step(
            watched, state, below.astype(np.float64), counts, end=(number + 1) * SECOND, tick=SECOND, period=period
        )
        alarms += [(number, row) for alarm in found for row in alarm.features]
    return state, alarms


def log_e(watched: Detectors) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.exp(watched.hit), np.exp(watched.miss)


@pytest.mark.parametrize("tau", [1.0, 3.7])
def test_a_vote_at_the_shifted_edge_leaves_no_bet_richer_on_average(tau: float) -> None:
    watched = detectors([uniform(tau=tau)])
    hit, miss = log_e(watched)
    shares = np.array([[k / BINS, 1 - k / BINS] for k in range(ROWS)])
    p = np.minimum(shares + 0.3, 1)[None, :, :, None]
    mean = p * hit + (1 - p) * miss
    assert mean[np.broadcast_to(watched.on[..., None], mean.shape)].max() <= 1 + 1e-12
    if tau == 1.0:  # to the power of 1/2, by Jensen, it is below 1; the untempered bet is exactly fair
        fair = p * hit**2 + (1 - p) * miss**2
        assert fair[np.broadcast_to(watched.on[..., None], fair.shape)] == pytest.approx(1)


def test_bets_at_edges_that_leave_no_room_are_off() -> None:
    watched = detectors([uniform()])
    shares = np.array(SHARES)
    np.testing.assert_array_equal(watched.on[0, :MISSING, 0], shares + 0.3 < 1)
    np.testing.assert_array_equal(watched.on[0, :MISSING, 1], shares - 0.3 > 0)
    assert not watched.on[0, MISSING].any()
    assert watched.mixture.sum() * len(BETS) == pytest.approx(1)


def test_a_tick_without_votes_changes_nothing() -> None:
    watched = detectors([uniform(), uniform()])
    before, _ = run(watched, [[[3.5], [2.5]]])
    after, alarms = step(watched, before, np.zeros((2, ROWS)), np.zeros(2), end=99 * SECOND, tick=SECOND, period=PERIOD)
    assert not alarms
    for name in ("evidence", "cusum", "since", "updated"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_silence_earns_at_most_one_tick_of_fresh_evidence() -> None:
    watched = detectors([uniform()])
    state, _ = run(watched, [[[3.5]]])
    below = np.array([[float(edge >= 3.5) for edge in watched.edges[0]]])
    soon, _ = step(watched, state, below, np.ones(1), end=2 * SECOND, tick=SECOND, period=PERIOD)
    late, _ = step(watched, state, below, np.ones(1), end=9_999 * SECOND, tick=SECOND, period=PERIOD)
    np.testing.assert_array_equal(soon.evidence, late.evidence)


def test_the_evidence_is_the_recursion_of_the_e_detector() -> None:
    watched = detectors([uniform(tau=1.5)])
    state, _ = run(watched, [[[-1.0, 3.5]], [[-1.0]]])
    edge, bet = 4, 2
    p = SHARES[edge] + 0.3
    gain, loss = 1 + BETS[bet] / p * (1 - p), 1 - BETS[bet]
    u = SECOND / PERIOD
    first = (0 + u) * (gain * gain) ** (1 / 3)  # both votes lie at or below the edge; g = 3
    assert state.evidence[0, edge, 0, bet] == pytest.approx((first + u) * gain ** (1 / 3), rel=1e-12)
    p = 1 - SHARES[edge] + 0.3
    assert not watched.on[0, edge, 1]
    assert state.evidence[0, edge, 1, bet] == 0
    assert loss < 1


def test_a_complete_shift_of_three_entities_is_found_within_fifteen_ticks_of_a_second() -> None:
    """The demo's shape: 5 features, tolerance 0.2, a reference of 700 votes (half of it used), tau 1."""
    c_ref = math.sqrt(math.log(2 * 5 / 0.01) / (2 * 350))
    watched = detectors([uniform(c_ref=c_ref) for _ in range(5)])
    rng = np.random.default_rng(1)
    calm = [rng.uniform(0, BINS, (5, 3)).tolist() for _ in range(100)]
    for moved in (1, 5):
        state, alarms = run(watched, calm)
        assert not alarms
        shifted = [[[-1.0] * 3] * moved + rng.uniform(0, BINS, (5 - moved, 3)).tolist() for _ in range(15)]
        _, alarms = run(watched, shifted, state)
        assert alarms
        assert {row for _, row in alarms} <= set(range(moved))


def test_since_is_the_tick_before_the_shift() -> None:
    watched = detectors([uniform()])
    rng = np.random.default_rng(2)
    state = start(watched)
    for number in range(200):
        votes = rng.uniform(0, BINS, 3) if number < 150 else np.full(3, 99.0)
        below = (votes[None, :, None] <= watched.edges[:, None, :]).sum(axis=1).astype(np.float64)
        state, alarms = step(
            watched, state, below, np.full(1, 3.0), end=(number + 1) * SECOND, tick=SECOND, period=PERIOD
        )
        if alarms:
            break
    assert alarms[0].since == 150 * SECOND
    assert alarms[0].rises


def test_a_feature_that_alarms_alone_resets_alone() -> None:
    watched = detectors([uniform(), uniform()])
    tick = [[-1.0] * 3, [8.5]]
    state, alarms = start(watched), list[tuple[int, int]]()
    while not alarms:
        state, alarms = run(watched, [tick], state)
    assert [row for _, row in alarms] == [0]
    parts = feature_evidence(watched, state)
    assert parts[0] == 0
    assert parts[1] > 0


@pytest.mark.parametrize("alone", [1.1, 1.6, 5.0])
def test_an_alarm_takes_only_what_its_feature_has(alone: float) -> None:
    watched = detectors([uniform(), uniform()])
    near = start(watched)
    evidence = np.where(watched.on[..., None], 2 * np.array([alone, 0.3]).reshape(-1, 1, 1, 1), 0.0)
    state, alarms = step(
        watched,
        replace(near, evidence=np.broadcast_to(evidence, near.evidence.shape)),
        np.zeros((2, ROWS)),
        np.zeros(2),
        end=SECOND,
        tick=SECOND,
        period=PERIOD,
    )
    assert [alarm.features for alarm in alarms] == [(0,)]
    assert alarms[0].evidence == pytest.approx(alone)
    assert feature_evidence(watched, state) == pytest.approx([0, 0.3])


def test_features_alarm_together_where_none_does_alone() -> None:
    watched = detectors([uniform(), uniform(), uniform(on=False)])
    near = start(watched)
    evidence = near.evidence.copy()
    evidence[:2] = np.where(watched.on[:2, ..., None], 2.4, 0.0)  # w M = 0.8 each: more than 1 in all, none alone
    state, alarms = step(
        watched,
        replace(near, evidence=evidence),
        np.tile(np.append(SHARES, 0.0) * 16, (3, 1)),
        np.array([0.0, 0.0, 16.0]),
        end=SECOND,
        tick=SECOND,
        period=PERIOD,
    )
    assert [alarm.features for alarm in alarms] == [(0, 1)]
    assert alarms[0].evidence == pytest.approx(1.6)
    assert feature_evidence(watched, state).sum() == 0


def test_a_feature_that_is_off_never_alarms() -> None:
    _, alarms = run(detectors([uniform(on=False)]), [[[-1.0] * 50] for _ in range(50)])
    assert alarms == []


def test_a_tick_of_very_many_votes_does_not_overflow() -> None:
    watched = detectors([uniform()])
    for below in (np.zeros((1, ROWS)), np.full((1, ROWS), 1e7)):
        state, alarms = step(watched, start(watched), below, np.array([1e7]), end=SECOND, tick=SECOND, period=PERIOD)
        assert len(alarms) == 1
        assert np.isfinite(alarms[0].evidence)
        assert np.isfinite(state.evidence).all()


def test_the_mean_evidence_on_the_boundary_grows_by_one_per_period() -> None:
    """E[M] = ticks x u while nothing is reset: the law on which the budget rests, here with g = 1 (tau 0.5)."""
    rng = np.random.default_rng(3)
    streams, ticks, period = 3_000, 40, 1e12
    watched = detectors([replace(uniform(c_ref=0.0, tau=0.5), edges=(0.0,), shares=(0.3,))] * streams)
    state = start(watched)
    for number in range(ticks):
        below = np.full((streams, ROWS), 2.0)
        below[:, 0] = rng.binomial(2, 0.5, streams)  # at the boundary: 0.3 + 0.2
        state, _ = step(
            watched, state, below, np.full(streams, 2.0), end=(number + 1) * SECOND, tick=SECOND, period=period
        )
    mild = state.evidence[:, 0, 0, 0]  # the boldest bets' means rest on rare paths
    assert mild.mean() * period / SECOND == pytest.approx(ticks, rel=0.15)


def test_expected_votes_agree_with_what_a_shift_takes() -> None:
    watched = detectors([uniform()])
    shifted = np.minimum(np.array(SHARES) + 0.6, 1.0)
    expected = expected_votes(watched, 0, shifted, tick=SECOND, period=PERIOD)
    rng = np.random.default_rng(4)
    took = []
    for _ in range(30):
        votes = [[list(np.maximum(rng.uniform(0, BINS, 3) - 0.6 * BINS, 0.0))] for _ in range(400)]
        took.append(3 * (run(watched, votes)[1][0][0] + 1))
    assert np.mean(took) == pytest.approx(expected, rel=0.25)
    assert expected_votes(watched, 0, np.array(SHARES), tick=SECOND, period=PERIOD) == math.inf


votes = st.lists(st.lists(st.floats(-2, 18), min_size=0, max_size=4), min_size=2, max_size=2)


@settings(max_examples=50, deadline=None)
@given(st.lists(votes, min_size=1, max_size=25), st.integers(0, 25))
def test_the_state_is_all_that_is_remembered(ticks: list[list[list[float]]], cut: int) -> None:
    watched = detectors([uniform(), uniform(tau=2.0)])

    def play(state: DriftState, part: list[tuple[int, list[list[float]]]]) -> DriftState:
        for number, tick in part:
            below = np.array(
                [
                    [float(sum(vote <= edge for vote in of)) for edge in edges]
                    for of, edges in zip(tick, watched.edges, strict=True)
                ]
            )
            counts = np.array([float(len(of)) for of in tick])
            state, _ = step(watched, state, below, counts, end=(number + 1) * SECOND, tick=SECOND, period=1e5)
        return state

    numbered = list(enumerate(ticks))
    whole = play(start(watched), numbered)
    parts = play(play(start(watched), numbered[:cut]), numbered[cut:])
    for name in ("evidence", "cusum", "since", "updated"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


@settings(max_examples=50, deadline=None)
@given(st.lists(votes, min_size=1, max_size=25))
def test_after_every_tick_less_than_one_alarm_is_left_in_m(ticks: list[list[list[float]]]) -> None:
    watched = detectors([uniform(), uniform()])
    state = start(watched)
    for tick in ticks:
        state, _ = run(watched, [tick], state, period=50.0 * SECOND)
        assert feature_evidence(watched, state).sum() < 1
        assert (state.evidence >= 0).all()


fractions = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(fractions, st.floats(0.01, 0.98))
def test_hits_that_are_fractions_never_bring_more_than_their_true_capital(hits: list[float], p: float) -> None:
    watched = detectors([Watched((), (p,), tolerance=0.01, c_ref=0.0, tau=0.5)])
    state = start(watched)
    summed = np.zeros((1, ROWS))
    summed[0, 0] = sum(hits)
    grown = grow(watched, state, summed, np.array([float(len(hits))]), end=SECOND, tick=SECOND, period=SECOND)
    for direction, (null, own) in enumerate([(p + 0.01, hits), (1 - p + 0.01, [1 - hit for hit in hits])]):
        if null < 1:
            true = [math.prod(1 + bet / null * (hit - null) for hit in own) for bet in BETS]
            assert (grown.evidence[0, 0, direction] <= np.array(true) * (1 + 1e-9)).all()


def test_the_missing_rate_has_votes_of_its_own() -> None:
    """Three entities, of which one has a value: the edges count one vote, the missing rate three."""
    watched = detectors([replace(uniform(), missing=Missing(share=0.0, c_ref=0.02, tau=1.0))])
    hits, votes = np.append(np.array(EDGES) >= 3.5, 2.0)[None], np.append(np.ones(BINS + 1), 3.0)[None]
    grown = grow(watched, start(watched), hits, votes, end=SECOND, tick=SECOND, period=PERIOD)
    alone = grow(detectors([uniform()]), start(watched), hits, np.ones(1), end=SECOND, tick=SECOND, period=PERIOD)
    np.testing.assert_array_equal(grown.evidence[0, :MISSING], alone.evidence[0, :MISSING])
    null = 0.2 + 0.02
    gains = [(1 + bet / null * (1 - null)) * math.sqrt(1 - bet) for bet in BETS]  # 2 hits and 1 miss, to the half
    assert grown.evidence[0, MISSING, 0] * PERIOD / SECOND == pytest.approx(gains)


def test_a_feature_without_any_value_alarms_by_its_missing_rate() -> None:
    watched = detectors([replace(uniform(), missing=Missing(share=0.0, c_ref=0.02, tau=1.0)), uniform()])
    hits, votes = np.zeros((2, ROWS)), np.zeros((2, ROWS))
    hits[0, MISSING] = votes[0, MISSING] = 3.0
    state, alarms = start(watched), tuple[Alarm, ...]()
    for number in range(15):
        state, alarms = step(watched, state, hits, votes, end=(number + 1) * SECOND, tick=SECOND, period=PERIOD)
        if alarms:
            break
    assert [(alarm.features, alarm.row, alarm.more, alarm.since) for alarm in alarms] == [((0,), MISSING, True, 0)]
    assert (state.updated[1], math.isinf(alarms[0].edge)) == (-1, True)


def test_where_only_a_rise_is_drift_a_fall_is_not_bet_on() -> None:
    watched = detectors([Watched((), (0.6,), tolerance=0.05, c_ref=0.02, tau=1.0, only_rise=True)])
    hits = np.zeros((1, ROWS))
    for level, found in ((0.0, False), (0.95, True)):
        state, alarms = start(watched), list[Alarm]()
        hits[0, 0] = 10 * level
        for number in range(50):
            state, said = step(
                watched, state, hits, np.array([10.0]), end=(number + 1) * SECOND, tick=SECOND, period=PERIOD
            )
            alarms += said
        assert bool(alarms) == found


def test_each_row_may_have_slack_of_its_own() -> None:
    common = Watched((), (0.2, 0.8), tolerance=0.1, c_ref=0.05, tau=1.0)
    watched = detectors([common, replace(common, margins=(0.05, 0.02))])
    np.testing.assert_array_equal(watched.hit[0, 0], watched.hit[1, 0])
    assert (watched.hit[0, 1, 0] < watched.hit[1, 1, 0]).all()
