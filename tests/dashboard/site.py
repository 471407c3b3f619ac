"""A live loop to look at: the phone factory on a stack of its own, its dashboard, and somebody hostile on the line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dashboard.proxy import signing_in

from tidemill.core.clock import SystemClock
from tidemill.core.settings import Settings, load_settings
from tidemill.dashboard.queries.browse import Thing, Wanted, browse
from tidemill.events.kafka import RecordWriter
from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel
from tidemill.stack.leash import leashed
from tidemill.stack.ports import free_ports
from tidemill.stack.readiness import is_ready
from tidemill.stack.running import what_runs
from tidemill.testing.waiting import eventually

__all__ = ["HOSTILE", "MODEL", "Site", "live_site", "mislabel", "send_hostile"]

MODEL = "default.phone-inspection"
HOSTILE = ("<img src=x onerror=alert(1)>", "=HYPERLINK(1)", "../../etc/passwd", "{{ 7 * 7 }}")
"""Labellers and ids as somebody might send them who means harm."""
_EXAMPLE = Path(__file__).parents[2] / "examples" / "phone_inspection"
_HISTORY = 5000
"""Pictures that the first version is trained on; of fewer, drift has no reference that is large enough."""
HEADER = "X-Forwarded-User"


@dataclass(frozen=True)
class Site:
    """A stack whose first version serves, with a line that runs."""

    folder: Path
    url: str
    """Of the dashboard on this machine alone, which holds labels for ten minutes before they are sent."""
    signed_in: dict[str, str]
    """Of one behind a proxy, by role."""

    @property
    def settings(self) -> Settings:
        """Of the stack."""
        return load_settings(environ={}, folder=self.folder)[0]

    @property
    def resource(self) -> ContinualModel:
        """The model."""
        return load(self.folder / "model.yaml")

    def status(self) -> dict[str, Any]:
        """What control knows of the model."""
        return read_status(self.folder)

    def line(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Let the factory do something."""
        return started(self.folder, "line.py", *arguments)


def read_status(folder: Path) -> dict[str, Any]:
    """The model's status; empty before there is one."""
    path = folder / ".tidemill" / "resources" / f"{MODEL}.status.json"
    status: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return status


def environ(**more: str) -> dict[str, str]:
    """This process's environment without settings of its own."""
    return {name: text for name, text in os.environ.items() if not name.startswith("TIDEMILL_")} | more


def started(folder: Path, *command: str, **settings: str) -> subprocess.Popen[bytes]:
    """A process in the folder, which dies with this one, however that ends; its output goes to a file beside it."""
    argv = leashed([sys.executable, *command])
    with (folder / "output.log").open("ab") as log:
        return subprocess.Popen(argv, cwd=folder, env=environ(**settings), stdout=log, stderr=log)


def done(folder: Path, *command: str) -> None:
    """Run a command of Tidemill in the folder to its end."""
    run = subprocess.run(
        leashed([sys.executable, *command]), cwd=folder, env=environ(), capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-4000:]


@contextmanager
def live_site(folder: Path) -> Iterator[Site]:
    """Bring it all up, and end it all."""
    shutil.copytree(_EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".tidemill"))
    resource = folder / "model.yaml"
    resource.write_text(resource.read_text().replace("  rollout:\n", "  rollout:\n    approval: required\n"))
    children: list[subprocess.Popen[bytes]] = []
    stack = started(folder, "-m", "tidemill.cli", "up")
    try:
        eventually(lambda: what_runs(folder / ".tidemill") is not None or stack.poll() is not None, 300, every_s=0.2)
        ports = free_ports(5)
        roles = dict(zip(("viewer", "labeller", "approver"), ports[2:], strict=True))
        children.append(dashboard(folder, ports[0], TIDEMILL_DASHBOARD_UNDO_SECONDS="600"))
        said = ",".join(f"a-{role}={role}" for role in roles)
        children.append(
            dashboard(folder, ports[1], TIDEMILL_DASHBOARD_IDENTITY_HEADER=HEADER, TIDEMILL_DASHBOARD_ROLES=said)
        )
        done(folder, "-m", "tidemill.cli", "apply", "-f", "model.yaml")
        done(folder, "line.py", "history", "--count", str(_HISTORY))
        eventually(lambda: read_status(folder).get("phase") == "Serving", 400, every_s=0.5)
        children.append(started(folder, "line.py", "run", "--seconds", "1800", "--rate", "12"))
        for port in ports[:2]:
            eventually(lambda port=port: is_ready(f"tcp://127.0.0.1:{port}"), 300, every_s=0.2)  # type: ignore[misc]
        with signed_in(ports[1], roles) as urls:
            yield Site(folder, f"http://127.0.0.1:{ports[0]}", urls)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(60)
        done(folder, "-m", "tidemill.cli", "down")
        stack.wait(60)


def dashboard(folder: Path, port: int, **settings: str) -> subprocess.Popen[bytes]:
    """A dashboard of the stack."""
    return started(folder, "-m", "tidemill.cli", "dashboard", "--port", str(port), **settings)


@contextmanager
def signed_in(upstream: int, roles: dict[str, int]) -> Iterator[dict[str, str]]:
    """A proxy for somebody of each role."""
    if not roles:
        yield {}
        return
    (role, port), *others = roles.items()
    with signing_in(port, upstream, HEADER, f"a-{role}"), signed_in(upstream, dict(others)) as urls:
        yield urls | {role: f"http://127.0.0.1:{port}"}


def mislabel(site: Site, labeller: str, station: str, count: int) -> list[str]:
    """Somebody calls phones of a station scratched that are not, and were answered so. Returns their events' ids."""
    lake, resource = site.settings.lake_uri, site.resource
    wanted = Wanted(entity=station, kind="right", answer="ok")

    def found() -> list[Thing]:
        now = SystemClock().now()
        things = browse(lake, resource, wanted, now, limit=count).things
        return list(things) if len(things) == count else []

    things = eventually(found, 120, every_s=1)
    with RecordWriter(site.settings.require_kafka()) as writer:
        for one in things:
            said = {**one.about, "labeller": labeller, "value": {"defect": "scratch", "box": [8, 8, 24, 24]}}
            writer.send(resource.labels_topic, json.dumps(said).encode(), key=station)
        writer.flush()
    return [one.event_id or "" for one in things]


def send_hostile(site: Site) -> None:
    """Answers and labels whose station, event, labeller and class are what somebody sends who means harm."""
    done(site.folder, "line.py", "picture", "phone.jpg", "--scratched")
    asking = [*("-m", "tidemill.cli", "predict", MODEL, "--file", "phone.jpg"), "--event"]
    events = [json.dumps({"station": text, "event_id": text}) for text in HOSTILE]
    for child in [started(site.folder, *asking, event) for event in events]:
        assert child.wait(120) == 0
    with RecordWriter(site.settings.require_kafka()) as writer:
        for text in HOSTILE:
            said = {"entity": text, "event_id": text, "labeller": text, "value": {"defect": text, "box": None}}
            writer.send("phone-inspection.labels", json.dumps(said).encode(), key=text)
            other = said | {"labeller": f"{text} too", "value": {"defect": "ok", "box": None}}
            writer.send("phone-inspection.labels", json.dumps(other).encode(), key=text)
        writer.flush()
