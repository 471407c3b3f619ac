"""What may go: the laws, over whatever there is and whatever is in use; and some plain cases."""

from collections.abc import Mapping
from datetime import timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tidemill.control.retention import Going, Kept, KeptVersion, Rule, in_use, may_go
from tidemill.control.state import LoopStatus, Run, Seen, Version
from tidemill.core.clock import from_ms
from tidemill.registry import Alias
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, TrafficSeen, TrafficWanted
from tidemill.rollout.late import RolloutWatch
from tidemill.rollout.machine import RolloutState
from tidemill.rollout.plan import RolloutPlan
from tidemill.rollout.plan import Version as Planned

DAY = 86_400_000
NOW = 1000 * DAY
NAMES = [f"r{number}" for number in range(8)]
DIGESTS = [f"d{number}" for number in range(6)]

names = st.sampled_from(NAMES)
times = st.integers(NOW - 60 * DAY, NOW)


def place(name: str | None) -> Version | None:
    return None if name is None else Version(version=name, artifact=f"/models/{name}", since=0)


def plan(candidate: str, champion: str | None) -> RolloutPlan:
    return RolloutPlan(
        rollout="1",
        candidate=Planned(candidate, "/c"),
        champion=None if champion is None else Planned(champion, "/b"),
        weights=(100,),
        margin=0.1,
        risk=0.05,
        min_outcomes=1,
        window_ms=1,
        slack_ms=1,
        age_ms=1,
        started_at=0,
        timeout_ms=1,
        ready_within_ms=1,
    )


plans = st.builds(plan, names, st.none() | names)
statuses = st.builds(
    LoopStatus,
    created_at=st.just(0),
    champion=(st.none() | names).map(place),
    candidate=(st.none() | names).map(place),
    previous=(st.none() | names).map(place),
    run=st.none() | st.builds(lambda name: Run(run=name, cause="drift", reason="", started_at=0), names),
    stopping=st.lists(names, max_size=1).map(tuple),
    rollout=st.none() | plans.map(lambda one: RolloutState(plan=one, phase="canary", phase_since=0)),
    watching=st.none() | plans.map(lambda one: RolloutWatch(plan=one, spans=(), since=0, until=1)),
    traffic=st.lists(names, max_size=2).map(
        lambda found: TrafficWanted(tuple(RevisionWanted(version=one, artifact="", share=0) for one in found))
    ),
    seen=st.lists(names, max_size=2).map(
        lambda found: Seen(traffic=TrafficSeen(tuple(RevisionSeen(version=one, share=0, ready=True) for one in found)))
    ),
)
kept = st.builds(
    Kept,
    versions=st.dictionaries(names, st.builds(KeptVersion, st.none() | times, st.sampled_from(["", *DIGESTS]))),
    snapshots=st.dictionaries(st.sampled_from(DIGESTS), st.none() | times),
    runs=st.dictionaries(names, times),
    frozen=st.none() | st.frozensets(st.sampled_from(DIGESTS), max_size=2),
)
aliases: st.SearchStrategy[Mapping[Alias, str]] = st.dictionaries(
    st.sampled_from(["champion", "candidate", "previous"]), names
)
rules = st.builds(Rule, st.integers(0, 40).map(lambda days: timedelta(days=days)), st.integers(0, 4))


def going(there: Kept, status: LoopStatus, named: Mapping[Alias, str], rule: Rule) -> Going:
    return may_go(there, status, named, rule, from_ms(NOW))


@given(kept, statuses, aliases, rules)
def test_what_serves_or_may_serve_again_never_goes(
    there: Kept, status: LoopStatus, named: Mapping[Alias, str], rule: Rule
) -> None:
    found = going(there, status, named, rule)
    used = in_use(status, named)
    for one in (status.champion, status.candidate, status.previous):
        assert one is None or one.version in used
    for part in (status.rollout, status.watching):
        assert part is None or {part.plan.candidate.name} | {getattr(part.plan.champion, "name", "r0")} <= used | {"r0"}
    assert set(named.values()) <= used
    assert not used & set(found.versions)
    assert not used & set(found.runs)


@given(kept, statuses, aliases, rules)
def test_what_a_version_that_stays_needs_never_goes(
    there: Kept, status: LoopStatus, named: Mapping[Alias, str], rule: Rule
) -> None:
    found = going(there, status, named, rule)
    stay = there.versions.keys() - set(found.versions)
    assert not {there.versions[name].snapshot for name in stay} & set(found.snapshots)
    assert not stay & set(found.runs)
    assert not set(found.snapshots) & set(there.frozen or DIGESTS)
    if in_use(status, named) - stay or any(there.versions[name].made_at is None for name in stay):
        assert found.snapshots == (), "one of those may need any of them"


@given(kept, statuses, aliases, rules)
def test_what_is_young_or_of_no_known_age_stays_and_so_do_the_newest(
    there: Kept, status: LoopStatus, named: Mapping[Alias, str], rule: Rule
) -> None:
    found = going(there, status, named, rule)
    at = {name: one.made_at for name, one in there.versions.items()}
    before = NOW - rule.older_than // timedelta(milliseconds=1)
    for times_of, gone in ((at, found.versions), (there.snapshots, found.snapshots), (there.runs, found.runs)):
        for name in gone:
            time = times_of[name]
            assert time is not None
            assert time < before
    newer = {name: sum((other or 0) > (at[name] or 0) for other in at.values()) for name in found.versions}
    assert all(count >= rule.newest for count in newer.values()) or len(set(at.values())) < len(at)


@given(kept, statuses, aliases, rules)
def test_nothing_goes_while_a_run_is_in_flight_or_where_nothing_serves(
    there: Kept, status: LoopStatus, named: Mapping[Alias, str], rule: Rule
) -> None:
    if status.run is not None or status.champion is None:
        assert not going(there, status, named, rule)


@given(kept, statuses, aliases, rules)
def test_what_is_left_is_left_the_next_time_too(
    there: Kept, status: LoopStatus, named: Mapping[Alias, str], rule: Rule
) -> None:
    found = going(there, status, named, rule)
    rest = Kept(
        versions={name: one for name, one in there.versions.items() if name not in found.versions},
        snapshots={name: at for name, at in there.snapshots.items() if name not in found.snapshots},
        runs={name: at for name, at in there.runs.items() if name not in found.runs},
        frozen=there.frozen,
    )
    assert not going(rest, status, named, rule).versions


OLD = NOW - 50 * DAY
SERVES = LoopStatus(created_at=0, champion=place("r7"), previous=place("r6"))
THERE = Kept(
    versions={name: KeptVersion(OLD + number, f"d-{name}") for number, name in enumerate(NAMES)},
    snapshots={**{f"d-{name}": OLD for name in NAMES}, "d-failed": OLD, "d-frozen": OLD},
    runs={**dict.fromkeys(NAMES, OLD), "r-failed": OLD},
    frozen={"d-frozen"},
)
RULE = Rule(timedelta(days=30), 3)


def test_old_versions_go_with_their_snapshots_and_runs_and_what_failed_runs_left() -> None:
    found = going(THERE, SERVES, {}, RULE)
    assert found.versions == ("r0", "r1", "r2", "r3", "r4")
    assert found.snapshots == ("d-failed", "d-r0", "d-r1", "d-r2", "d-r3", "d-r4")
    assert found.runs == ("r-failed", "r0", "r1", "r2", "r3", "r4")


def test_a_version_that_only_an_alias_names_stays() -> None:
    assert going(THERE, SERVES, {"previous": "r0"}, RULE).versions == ("r1", "r2", "r3", "r4")


def test_where_the_champions_files_are_not_found_every_snapshot_stays() -> None:
    elsewhere = msgspec.structs.replace(SERVES, champion=place("r9"))
    found = going(THERE, elsewhere, {}, RULE)
    assert found.versions
    assert not found.snapshots
