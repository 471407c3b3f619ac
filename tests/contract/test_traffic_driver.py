"""What every traffic driver does: behind Envoy with real processes, on a cluster in memory, and the double."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.contract.traffic_cases import (
    Case,
    DoubleCase,
    GatewayCase,
    KnativeCase,
    RealCase,
)

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.core.settings import Settings
from tidemill.rollout.driver import RevisionSeen, Sticky, TrafficSeen, TrafficWanted
from tidemill.rollout.local import LocalTrafficDriver
from tidemill.spec.paths import MIRROR_HEADER, predict_path, served_name
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource
from tidemill.testing.process import supervise
from tidemill.testing.traffic import MemoryTrafficDriver, wanted_shares


@pytest.fixture
def real(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Iterator[RealCase]:
    envoy = request.getfixturevalue("envoy")
    state, over = tmp_path / "state", threading.Event()
    state.mkdir()
    (state / "envoy").symlink_to(envoy.folder)
    thread = threading.Thread(target=supervise, args=(state, over), kwargs={"env": {}, "folder": tmp_path})
    thread.start()
    case = RealCase(envoy, state, topic_prefix, tmp_path)
    try:
        yield case
    finally:
        over.set()
        thread.join(20)
        case.http.close()
        case.real.close()
        (envoy.folder / "models" / f"{case.resource.id}.json").unlink(missing_ok=True)


@pytest.fixture(params=["double", "gateway", "knative", pytest.param("real", marks=pytest.mark.envoy)])
def case(request: pytest.FixtureRequest) -> Case:
    in_memory = {"double": DoubleCase, "gateway": GatewayCase, "knative": KnativeCase}
    if request.param in in_memory:
        return in_memory[request.param]()
    found: Case = request.getfixturevalue("real")
    return found


def seen_of(seen: TrafficSeen, version: str) -> RevisionSeen:
    found = seen.revision(version)
    assert found is not None
    return found


def with_both_ready(case: Case) -> None:
    case.until({"v1": 100}, lambda seen: seen.revision("v1"))
    case.become_ready("v1")
    case.until({"v1": 100})
    case.until({"v1": 100, "v2": 0}, lambda seen: len(seen.revisions) == 2)
    case.become_ready("v2")
    case.until(
        {"v1": 100, "v2": 0}, lambda seen: all(one.ready for one in seen.revisions) and seen_of(seen, "v1").share
    )


def test_without_a_wish_nothing_is_served(case: Case) -> None:
    seen = case.until({})
    assert seen.revisions == ()
    assert seen.endpoint is not None
    assert seen.endpoint.startswith("http://127.0.0.1:")


def test_a_version_gets_traffic_once_it_is_ready(case: Case) -> None:
    seen = case.until({"v1": 100}, lambda seen: seen.revision("v1"))
    assert (seen_of(seen, "v1").share, seen_of(seen, "v1").ready) == (0, False)
    case.become_ready("v1")
    assert seen_of(case.until({"v1": 100}), "v1").ready


@pytest.mark.parametrize("share", [5, 25, 50, 100])
def test_shares_become_what_was_asked_for(case: Case, share: int) -> None:
    with_both_ready(case)
    case.until({"v1": 100 - share, "v2": share})


def test_the_share_of_an_unready_version_stays_with_the_ready_one(case: Case) -> None:
    case.until({"v1": 100}, lambda seen: seen.revision("v1"))
    case.become_ready("v1")
    case.until({"v1": 100})
    seen = case.until({"v1": 75, "v2": 25}, lambda seen: seen.revision("v2"))
    assert (seen_of(seen, "v1").share, seen_of(seen, "v2").share) == (100, 0)
    case.become_ready("v2")
    case.until({"v1": 75, "v2": 25})


def test_a_version_with_nothing_is_kept_ready(case: Case) -> None:
    with_both_ready(case)
    assert seen_of(case.until({"v1": 100, "v2": 0}), "v2").ready


def test_a_version_with_nothing_gets_nothing_even_where_the_other_has_ended(case: Case) -> None:
    if isinstance(case, KnativeCase):
        return  # KServe has no way to say so: see the test below
    with_both_ready(case)
    case.become_unready("v1")
    case.until({"v1": 100, "v2": 0}, lambda seen: not seen_of(seen, "v1").ready)
    case.until({"v1": 0, "v2": 100})
    seen = case.until({"v1": 100, "v2": 0}, lambda seen: not seen_of(seen, "v2").share)
    assert seen_of(seen, "v1").share == 0


def test_on_knative_what_is_rolled_out_goes_on_until_another_version_is_ready() -> None:
    case = KnativeCase()
    with_both_ready(case)
    case.become_unready("v1")
    case.until({"v1": 0, "v2": 100})
    seen = case.until({"v1": 100, "v2": 0}, lambda seen: case.spec()["canaryTrafficPercent"] == 0)
    assert seen_of(seen, "v2").share == 100
    case.become_ready("v1")
    case.until({"v1": 100, "v2": 0})


def test_the_old_version_serves_until_the_new_one_is_ready_and_is_ended_then(case: Case) -> None:
    case.until({"v1": 100}, lambda seen: seen.revision("v1"))
    case.become_ready("v1")
    case.until({"v1": 100})
    seen = case.until({"v2": 100}, lambda seen: seen.revision("v2"))
    assert seen_of(seen, "v1").share == 100
    case.become_ready("v2")
    case.until({"v2": 100})


def test_a_version_that_is_no_longer_wanted_is_gone_in_the_end(case: Case) -> None:
    with_both_ready(case)
    case.until({"v1": 50, "v2": 50})
    case.until({"v1": 100})


def test_where_nothing_is_wanted_any_more_everything_ends(case: Case) -> None:
    with_both_ready(case)
    case.until({})


def test_asking_again_changes_nothing(case: Case) -> None:
    with_both_ready(case)
    before = case.until({"v1": 75, "v2": 25})
    for _ in range(3):
        case.driver.apply(wanted_shares({"v1": 75, "v2": 25}))
    assert case.driver.observe() == before


def test_a_server_that_cannot_start_says_why(case: Case) -> None:
    case.until({"v1": 100}, lambda seen: seen.revision("v1"))
    case.fail("v1", "model.onnx is not the file that was written")
    seen = case.until({"v1": 100}, lambda seen: seen_of(seen, "v1").failed)
    failed = seen_of(seen, "v1").failed
    assert failed is not None
    assert "model.onnx is not the file that was written" in failed
    assert not seen_of(seen, "v1").ready


def test_requests_and_errors_are_counted_by_version(case: Case) -> None:
    with_both_ready(case)
    before = seen_of(case.until({"v1": 0, "v2": 100}), "v2")
    case.send(7)
    case.send(3, failing=True)
    seen = case.until({"v1": 0, "v2": 100}, lambda seen: seen_of(seen, "v2").requests >= before.requests + 10)
    after = seen_of(seen, "v2")
    assert (after.requests - before.requests, after.errors - before.errors) == (10, 3)
    assert seen_of(seen, "v1").errors == 0


def test_copies_reach_who_is_to_get_them_and_change_no_share(case: Case) -> None:
    if not case.driver.mirrors:
        return  # the proposal is refused: tests/control/test_shadow.py
    with_both_ready(case)
    seen = case.until({"v1": 100, "v2": 0}, lambda seen: seen.mirror == "v2", mirror="v2")
    assert (seen_of(seen, "v1").share, seen_of(seen, "v2").share) == (100, 0)
    case.until({"v1": 75, "v2": 25}, lambda seen: seen.mirror is None and seen_of(seen, "v2").share == 25)


def test_a_driver_that_cannot_see_says_so(tmp_path: Path) -> None:
    double = MemoryTrafficDriver()
    double.unavailable = True
    settings = Settings(state=tmp_path, endpoint="http://127.0.0.1:1", envoy_admin="http://127.0.0.1:1")
    local = LocalTrafficDriver(
        FileSupervisor(tmp_path / "processes"),
        settings,
        resource=example_resource(),
        file=tmp_path / "model.yaml",
        clock=SystemClock(),
    )
    for driver in (double, local):
        with pytest.raises(Unavailable):
            driver.observe()
        with pytest.raises(Unavailable):
            driver.apply(TrafficWanted())
    local.close()


@pytest.mark.envoy
def test_requests_are_split_as_the_weights_say(real: RealCase) -> None:
    with_both_ready(real)
    real.until({"v1": 75, "v2": 25})
    answers = [real.predict({}).json()["version"] for _ in range(400)]
    # 5 standard deviations of a binomial with 400 and 0.25 are 43
    assert 57 <= answers.count("v2") <= 143


@pytest.mark.envoy
def test_a_copy_says_that_it_is_one_and_no_client_can(real: RealCase) -> None:
    with_both_ready(real)
    real.until({"v1": 100, "v2": 0}, lambda seen: seen.mirror == "v2", mirror="v2")
    spoofed = {MIRROR_HEADER: "v1"}
    answers = [real.http.post(predict_path(real.resource), json={}, headers=spoofed) for _ in range(10)]
    assert {answer.json()["version"] for answer in answers} == {"v1"}
    told = [real.folder / f"{version}.told" for version in ("v1", "v2")]
    eventually(lambda: all(len(file.read_text().splitlines()) == 10 for file in told))
    first, second = ([line.split() for line in file.read_text().splitlines()] for file in told)
    assert {version for version, _ in first + second} == {"v2"}
    assert {name for _, name in first} == {name for _, name in second}, "by which a copy and its request are paired"
    assert len({name for _, name in first}) == 10
    seen = real.driver.observe()
    assert [one.requests - one.errors for one in seen.revisions] == [10, 10]
    real.until({"v1": 100, "v2": 0}, lambda seen: seen.mirror is None)
    real.http.post(predict_path(real.resource), json={}, headers={MIRROR_HEADER: "v1"})
    assert len(told[0].read_text().splitlines()) == 10


@pytest.mark.slow
@pytest.mark.envoy
def test_whoever_answers_copies_may_hang_or_end_and_no_user_notices(real: RealCase) -> None:
    with_both_ready(real)
    real.until({"v1": 100, "v2": 0}, lambda seen: seen.mirror == "v2", mirror="v2")

    def slowest(seconds: float) -> float:
        """The 95th percentile of the answers' times, all of which are the champion's, in seconds."""
        took, clock = list[float](), SystemClock()
        until = clock.monotonic() + seconds
        while (begun := clock.monotonic()) < until:
            assert real.predict({}).json()["version"] == "v1"
            took.append(clock.monotonic() - begun)
        return sorted(took)[len(took) * 95 // 100]

    usual = slowest(2)
    (real.folder / "v2.hang").touch()
    hung = slowest(2)
    # What is more than it may have in hand is dropped, and counted as failed.
    eventually(lambda: slowest(1) and seen_of(real.driver.observe(), "v2").errors > 50, 20)
    seen = real.driver.observe()
    assert seen_of(seen, "v2").errors <= seen_of(seen, "v2").requests
    assert seen_of(seen, "v1").errors == 0
    (real.folder / "v2.hang").unlink()
    real.become_unready("v2")
    ended = slowest(3)
    assert max(hung, ended) < 10 * usual + 0.1, (usual, hung, ended)
    seen = real.until({"v1": 100, "v2": 0}, lambda seen: seen.mirror is None, mirror="v2")
    assert seen_of(seen, "v1").share == 100


@pytest.mark.envoy
def test_raising_a_share_moves_no_key_back(real: RealCase) -> None:
    with_both_ready(real)
    sticky = Sticky(header="x-user", salt="v2-1", first="v2")
    moved = set[int]()
    for share in (5, 25, 50):
        real.until({"v1": 100 - share, "v2": share}, sticky=sticky)
        before, moved = moved, real.keys_of("v2", 400)
        assert before <= moved, "a key went back"
        # 5 standard deviations of a binomial with 400 keys
        assert abs(len(moved) - 4 * share) <= 5 * (4 * share * (100 - share) / 100) ** 0.5
    assert real.keys_of("v2", 400) == moved, "a key does not keep its version"


@pytest.mark.envoy
def test_another_rollout_assigns_keys_anew_and_requests_without_a_key_go_by_chance(real: RealCase) -> None:
    with_both_ready(real)
    found = []
    for salt in ("v2-1", "v3-2"):
        real.until({"v1": 100, "v2": 0})
        real.until({"v1": 50, "v2": 50}, sticky=Sticky(header="x-user", salt=salt, first="v2"))
        found.append(real.keys_of("v2", 200))
    # Independent halves of 200 have 50 in common; 5 standard deviations are 30.
    assert 20 <= len(found[0] & found[1]) <= 80
    answers = [real.predict({}).json()["version"] for _ in range(100)]
    assert 25 <= answers.count("v2") <= 75
    path, empty = predict_path(real.resource), {"x-user": ""}
    answers = [real.http.post(path, json={}, headers=empty).json()["version"] for _ in range(100)]
    assert 25 <= answers.count("v2") <= 75, "who has an empty key has none, and is not one user"


@pytest.mark.envoy
def test_both_protocols_lead_to_the_model_and_nothing_else_does(real: RealCase) -> None:
    with_both_ready(real)
    name = served_name(real.resource)
    assert real.predict({}, f"/v2/models/{name}/infer").json() == {"version": "v1"}
    assert real.http.get(f"/v1/models/{name}").status_code == 200
    for path in ("/v1/models/other:predict", f"/v1/models/{name}x:predict", f"/v1/models/x{name}:predict", "/"):
        answer = real.predict({}, path)
        assert answer.status_code == 404
        assert answer.json()["error"] == "no such model"


@pytest.mark.envoy
def test_a_model_without_a_ready_version_answers_503_in_json(real: RealCase) -> None:
    real.until({"v1": 100}, lambda seen: seen.revision("v1"))
    answer = eventually(lambda: found if "not ready" in (found := real.predict({})).text else None)
    assert answer is not None
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["hint"] == "tidemill status"


@pytest.mark.envoy
def test_a_request_in_flight_is_answered_before_its_server_ends(real: RealCase) -> None:
    with_both_ready(real)
    real.until({"v1": 0, "v2": 100})
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(real.predict({"wait": "go"})))
    thread.start()
    eventually(lambda: (real.folder / "arrived").exists())
    real.until({"v1": 100}, lambda seen: seen_of(seen, "v1").share == 100)
    # Longer than the pause after which a drained server would be ended.
    started = SystemClock().monotonic()
    real.until({"v1": 100}, lambda _: SystemClock().monotonic() - started > 2)
    assert any(process.name.endswith("v2") for process in real.supervisor.observe())
    (real.folder / "go").touch()
    thread.join(10)
    assert [answer.status_code for answer in answers] == [200]
    real.until({"v1": 100})
    eventually(lambda: not any(process.name.endswith("v2") for process in real.supervisor.observe()))


@pytest.mark.envoy
def test_no_request_fails_while_weights_move_and_versions_come_and_go(real: RealCase) -> None:
    with_both_ready(real)
    over, statuses = threading.Event(), list[int]()

    def load() -> None:
        with httpx.Client(base_url=real.endpoint, trust_env=False, timeout=30) as http:
            while not over.wait(0.005):
                statuses.append(http.post(predict_path(real.resource), json={}).status_code)

    thread = threading.Thread(target=load)
    thread.start()
    for shares in ({"v1": 95, "v2": 5}, {"v1": 50, "v2": 50}, {"v1": 0, "v2": 100}, {"v2": 100}):
        real.until(shares)
    over.set()
    thread.join(10)
    assert len(statuses) > 50
    assert set(statuses) == {200}


@pytest.mark.envoy
def test_a_new_driver_finds_what_the_old_one_left(real: RealCase) -> None:
    with_both_ready(real)
    before = real.until({"v1": 75, "v2": 25})
    pids = {process.name: process.pid for process in real.supervisor.observe()}
    another = real.another_driver()
    another.apply(wanted_shares({"v1": 75, "v2": 25}))
    assert another.observe() == before
    assert {process.name: process.pid for process in real.supervisor.observe()} == pids
    another.close()


@pytest.mark.envoy
def test_routes_that_someone_overwrote_are_written_again(real: RealCase) -> None:
    from tidemill.stack.envoy import ROUTES_FILE, no_routes, resources

    with_both_ready(real)
    real.until({"v1": 75, "v2": 25})
    (real.state / "envoy" / "other").write_text(resources(no_routes()))
    (real.state / "envoy" / "other").rename(real.state / "envoy" / ROUTES_FILE)
    eventually(lambda: not real.driver.observe().revisions[0].share)
    real.until({"v1": 75, "v2": 25})


@pytest.mark.envoy
def test_two_models_share_the_proxy(real: RealCase) -> None:
    with_both_ready(real)
    other = example_resource(f"{real.resource.metadata.name}-b")
    driver = real.another_driver(other)

    def serves() -> bool:
        driver.apply(wanted_shares({"v2": 100}))
        return seen_of(driver.observe(), "v2").share == 100

    eventually(serves, 20)
    assert real.predict({}, predict_path(other)).json() == {"version": "v2"}
    assert real.predict({}).json() == {"version": "v1"}

    def is_gone() -> bool:
        driver.apply(TrafficWanted())
        return not driver.observe().revisions

    eventually(is_gone, 20)
    assert json.loads(real.predict({}, predict_path(other)).text)["error"] == "no such model"
    driver.close()


@pytest.mark.envoy
def test_a_port_that_another_program_took_is_left_to_it(real: RealCase) -> None:
    import socket

    import msgspec

    from tidemill.rollout.envoy_files import Kept, Routed

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        kept = Kept(version="v1", artifact="/artifacts/v1", port=taken.getsockname()[1], share=100)
        file = real.state / "envoy" / "models" / f"{real.resource.id}.json"
        file.write_bytes(
            msgspec.json.encode(Routed(model=real.resource.id, name=served_name(real.resource), revisions=(kept,)))
        )
        real.become_ready("v1")
        real.until({"v1": 100})
