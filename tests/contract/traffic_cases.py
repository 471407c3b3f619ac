"""What the traffic drivers are tried on: each with what plays its proxy, its platform and its servers."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tidemill.core.clock import SystemClock
from tidemill.core.settings import Settings
from tidemill.rollout.driver import Sticky, TrafficDriver, TrafficSeen
from tidemill.rollout.gateway import GatewayTrafficDriver
from tidemill.rollout.http_route import Gateway
from tidemill.rollout.knative import KnativeTrafficDriver
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.rollout.local import LocalTrafficDriver
from tidemill.rollout.prometheus import Counted, RevisionMetrics
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import predict_path
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.clock import ManualClock
from tidemill.testing.cluster import InMemoryCluster
from tidemill.testing.knative import PlayedKnative, PlayedKServeOnKnative
from tidemill.testing.kserve import PlayedGateway, PlayedKServe, Servers
from tidemill.testing.loop import example_resource
from tidemill.testing.traffic import MemoryTrafficDriver, wanted_shares

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
        if self.headers["x-tidemill-mirror"]:
            with (folder / (version + ".told")).open("a") as told:
                told.write(self.headers["x-tidemill-mirror"] + " " + self.headers["x-request-id"] + "\\n")
        if (folder / (version + ".hang")).exists():
            time.sleep(30)
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

    def until(
        self,
        shares: dict[str, int],
        condition: Callable[[TrafficSeen], Any] | None = None,
        sticky: Sticky | None = None,
        mirror: str | None = None,
    ) -> TrafficSeen:
        """Ask for these shares again and again, as control does, until the condition (default: the shares) is seen."""
        wanted = wanted_shares(shares, sticky, mirror)
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

    def keys_of(self, version: str, count: int) -> set[int]:
        """Which of so many users are answered by the version."""
        path = predict_path(self.resource)
        answers = (self.http.post(path, json={}, headers={"x-user": str(user)}).json() for user in range(count))
        return {user for user, answer in enumerate(answers) if answer["version"] == version}

    def predict(self, body: dict[str, Any], path: str | None = None) -> httpx.Response:
        return self.http.post(path or predict_path(self.resource), json=body)
