"""What every traffic driver does: behind Envoy with real processes, on a cluster in memory, and the double."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.core.settings import Settings
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, TrafficDriver, TrafficSeen, TrafficWanted
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import Gateway
from tidemill.rollout.knative import KnativeTrafficDriver
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.rollout.local import LocalTrafficDriver
from tidemill.rollout.prometheus import Counted, RevisionMetrics
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import predict_path, served_name
from tidemill.stack.runner import Runner
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.clock import ManualClock
from tidemill.testing.cluster import InMemoryCluster
from tidemill.testing.knative import PlayedKnative, PlayedKServeOnKnative
from tidemill.testing.kserve import PlayedGateway, PlayedKServe, Servers
from tidemill.testing.loop import example_resource
from tidemill.testing.traffic import MemoryTrafficDriver

# Answers with its version; ready while `<folder>/<version>.ready` is there, ends with the words of `.fail`.
SERVER = """
import json, os, pathlib, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder = pathlib.Path(sys.argv[1])
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
version = given["--version"]

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.answer(200 if (folder / (version + ".ready")).exists() else 503, {})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "wait" in body:
            (folder / "arrived").touch()
            while not (folder / body["wait"]).exists():
                time.sleep(0.01)
        self.answer(500 if body.get("fail") else 200, {"version": version})
    def log_message(self, *_):
        pass

def watch():
    while not (folder / (version + ".fail")).exists():
        time.sleep(0.01)
    print("error: " + (folder / (version + ".fail")).read_text() + "\\nhint: none", file=sys.stderr, flush=True)
    os._exit(3)

threading.Thread(target=watch, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(given["--port"])), Handler).serve_forever()
"""


class Case:
    """A driver and what surrounds it: servers that become ready or fail when they are told to."""

    driver: TrafficDriver

    def become_ready(self, version: str) -> None:
        raise NotImplementedError

    def become_unready(self, version: str) -> None:
        """Its server has ended and does not come back."""
        raise NotImplementedError

    def fail(self, version: str, why: str) -> None:
        raise NotImplementedError

    def send(self, count: int, *, failing: bool = False) -> None:
        """Requests to the version that has all traffic."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let those whose part is played do theirs."""

    def until(self, shares: dict[str, int], condition: Callable[[TrafficSeen], Any] | None = None) -> TrafficSeen:
        """Ask for these shares again and again, as control does, until the condition (default: the shares) is seen."""
        wanted = wanted_shares(shares)
        told = condition or (lambda seen: {one.version: one.share for one in seen.revisions} == shares)

        def observed() -> TrafficSeen | None:
            self.driver.apply(wanted)
            self.settle()
            seen = self.driver.observe()
            return seen if told(seen) else None

        seen = eventually(observed, 20, every_s=0.05)
        assert seen is not None
        return seen


class DoubleCase(Case):
    def __init__(self) -> None:
        self.driver = self.double = MemoryTrafficDriver()

    def become_ready(self, version: str) -> None:
        self.double.become_ready(version)

    def become_unready(self, version: str) -> None:
        self.double.become_unready(version)

    def fail(self, version: str, why: str) -> None:
        self.double.fail(version, why)

    def send(self, count: int, *, failing: bool = False) -> None:
        (version,) = (one.version for one in self.double.observe().revisions if one.share == 100)
        self.double.answered(version, requests=count, errors=count if failing else 0)


class Counts(RevisionMetrics):
    """Requests and errors by version, as a Prometheus has them."""

    def __init__(self) -> None:
        self.by_version: dict[str, Counted] = {}

    def counted(self, namespace: str, pods: Mapping[str, str]) -> dict[str, Counted]:
        return {version: self.by_version.get(version, Counted()) for version in pods}

    def answered(self, version: str, requests: int, errors: int) -> None:
        before = self.by_version.get(version, Counted())
        self.by_version[version] = Counted(requests=before.requests + requests, errors=before.errors + errors)


class ClusterCase(Case):
    """A driver over an API server in memory, on which its surroundings are played."""

    players: Sequence[PlayedKServe | PlayedGateway | PlayedKServeOnKnative | PlayedKnative]

    def __init__(self) -> None:
        self.cluster, self.clock, self.servers, self.counts = InMemoryCluster(), ManualClock(), Servers(), Counts()

    def settle(self) -> None:
        for player in self.players:
            player.play()
        self.clock.advance(2)

    def become_ready(self, version: str) -> None:
        self.servers.become_ready(version)

    def become_unready(self, version: str) -> None:
        self.servers.become_unready(version)

    def fail(self, version: str, why: str) -> None:
        self.servers.fail(version, why)

    def send(self, count: int, *, failing: bool = False) -> None:
        (version,) = (one.version for one in self.driver.observe().revisions if one.share == 100)
        self.counts.answered(version, count, count if failing else 0)


class GatewayCase(ClusterCase):
    def __init__(self) -> None:
        super().__init__()
        self.kserve = PlayedKServe(self.cluster.as_manager("kserve"), self.servers)
        self.gateway = PlayedGateway(self.cluster.as_manager("gateway"))
        self.players = (self.kserve, self.gateway)
        self.driver = self.another_driver()

    def another_driver(self) -> GatewayTrafficDriver:
        return GatewayTrafficDriver(
            self.cluster,
            resource=example_resource(),
            gateway=Gateway("gateways", "public"),
            clock=self.clock,
            endpoint="http://127.0.0.1:1",
            metrics=self.counts,
        )


class KnativeCase(ClusterCase):
    def __init__(self) -> None:
        super().__init__()
        cluster = self.cluster.as_manager("controllers")
        self.players = (PlayedKServeOnKnative(cluster, self.servers), PlayedKnative(cluster, self.servers))
        self.driver = self.another_driver()

    def another_driver(self) -> KnativeTrafficDriver:
        return KnativeTrafficDriver(
            self.cluster, resource=example_resource(), endpoint="http://127.0.0.1:1", metrics=self.counts
        )

    def spec(self) -> dict[str, Any]:
        found = self.cluster.get(INFERENCE_SERVICE, "default", "phone-inspection")
        assert found is not None
        return dict(found["spec"]["predictor"])


class RealCase(Case):
    def __init__(self, envoy: Any, state: Path, name: str, folder: Path) -> None:
        self.endpoint, self.folder, self.state = envoy.endpoint, folder, state
        self.resource: ContinualModel = example_resource(name)
        self.settings = Settings(state=state, endpoint=envoy.endpoint, envoy_admin=envoy.admin)
        self.supervisor = FileSupervisor(state / "processes")
        self.driver = self.real = self.another_driver()
        self.http = httpx.Client(base_url=self.endpoint, trust_env=False, timeout=30)

    def another_driver(self, resource: ContinualModel | None = None) -> LocalTrafficDriver:
        return LocalTrafficDriver(
            self.supervisor,
            self.settings,
            resource=resource or self.resource,
            file=self.folder / "model.yaml",
            clock=SystemClock(),
            command=(sys.executable, "-S", "-c", SERVER, str(self.folder)),
        )

    def become_ready(self, version: str) -> None:
        (self.folder / f"{version}.ready").touch()

    def become_unready(self, version: str) -> None:
        (self.folder / f"{version}.ready").unlink()
        self.fail(version, "it ended")

    def fail(self, version: str, why: str) -> None:
        (self.folder / f"{version}.fail").write_text(why)

    def send(self, count: int, *, failing: bool = False) -> None:
        for _ in range(count):
            self.predict({"fail": failing})

    def predict(self, body: dict[str, Any], path: str | None = None) -> httpx.Response:
        return self.http.post(path or predict_path(self.resource), json=body)


@pytest.fixture
def real(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Iterator[RealCase]:
    envoy = request.getfixturevalue("envoy")
    state, over = tmp_path / "state", threading.Event()
    state.mkdir()
    (state / "envoy").symlink_to(envoy.folder)
    runner = Runner(state, env={}, folder=tmp_path, clock=SystemClock())
    runner.follow_files(True)

    def loop() -> None:
        while not over.is_set():
            runner.step()
            runner.sleep()
        runner.close()

    thread = threading.Thread(target=loop)
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


def wanted_shares(shares: dict[str, int]) -> TrafficWanted:
    return TrafficWanted(
        tuple(
            RevisionWanted(version=name, artifact=f"s3://artifacts/{name}", share=share)
            for name, share in shares.items()
        )
    )


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


def test_no_driver_is_sticky_yet(case: Case) -> None:
    assert case.driver.sticky is False


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
