"""The API of Kubeflow Pipelines (v2beta1) as far as runs need it, over HTTP, for its own client.

Made from KFP's published API (`kfp_server_api`): pipelines and their versions are uploaded and listed, runs created,
listed, terminated and archived. What a run does a test says, by `show`, or by a function that each new run is given to.
"""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from tidemill.core.clock import SystemClock

__all__ = ["KfpApi"]

_BASE = "/apis/v2beta1/"
_FIELDS = {"name", "display_name", "storage_state", "state", "run_id", "experiment_id", "created_at"}
"""Those that KFP 2.17 filters runs by, but for a few; it refuses all others, `pipeline_id` among them."""

Started = Callable[[dict[str, Any]], None]
"""Given each new run, as the API shows it."""


class KfpApi:
    """A server on loopback; `url` is its address. Close it."""

    def __init__(self, started: Started = lambda run: None) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        """By id, as the API shows them."""
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        """The compiled pipeline of each version."""
        self._experiments: dict[str, dict[str, Any]] = {}
        self._started, self._clock = started, SystemClock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers.get("content-length") or 0)))

            def _answer(self, body: bytes) -> None:
                asked = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(asked.query).items()}
                status, found = api._answer(
                    self.command, asked.path.removeprefix(_BASE), query, body, self.headers.get("content-type") or ""
                )
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def named(self, name: str) -> dict[str, Any]:
        """The run with this display name."""
        return next(run for run in self.runs.values() if run["display_name"] == name)

    def show(self, name: str, state: str, *, step: str | None = None, error: str | None = None) -> None:
        """From now on the run is shown like this."""
        run = self.named(name)
        run["state"] = state
        tasks = [{"display_name": step, "state": state}] if step else []
        if error is not None:
            run["error"] = {"code": 2, "message": error}
        run["run_details"] = {"task_details": tasks}

    def _answer(
        self, method: str, path: str, query: dict[str, str], body: bytes, kind: str
    ) -> tuple[int, dict[str, Any]]:
        part, _, rest = path.partition("/")
        routes: dict[tuple[str, str], Callable[[], dict[str, Any] | None]] = {
            ("GET", "healthz"): lambda: {"multi_user": False},
            ("GET", "experiments"): lambda: _listed("experiments", self._experiments, query),
            ("POST", "experiments"): lambda: self._made(self._experiments, "experiment_id", json.loads(body)),
            ("GET", "pipelines"): lambda: self._pipelines(rest, query),
            ("POST", "pipelines"): lambda: self._upload(rest, query, body, kind),
            ("GET", "runs"): lambda: self.runs.get(rest) if rest else _listed("runs", self.runs, query),
            ("POST", "runs"): lambda: self._act(rest) if rest else self._run(json.loads(body)),
        }
        found = routes.get((method, part.partition(":")[0]), lambda: None)()
        return (404, {"error": f"there is no {path}"}) if found is None else (200, found)

    def _pipelines(self, rest: str, query: dict[str, str]) -> dict[str, Any] | None:
        name, _, below = rest.partition("/")
        if below == "versions":
            of = {key: one for key, one in self.versions.items() if one["pipeline_id"] == name}
            return _listed("pipeline_versions", of, query)
        return self.pipelines.get(name) if name else _listed("pipelines", self.pipelines, query)

    def _upload(self, rest: str, query: dict[str, str], body: bytes, kind: str) -> dict[str, Any] | None:
        form = BytesParser(policy=HTTP).parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body)
        sent = next((part.get_payload(decode=True) for part in form.iter_parts()), b"")
        content = sent if isinstance(sent, bytes) else b""
        if rest == "upload":
            made = self._made(self.pipelines, "pipeline_id", {"display_name": query["name"], "name": query["name"]})
            self._version(made["pipeline_id"], query["name"], content)
            return made
        return self._version(query["pipelineid"], query["name"], content) if rest == "upload_version" else None

    def _version(self, pipeline: str, name: str, content: bytes) -> dict[str, Any]:
        made = self._made(self.versions, "pipeline_version_id", {"display_name": name, "pipeline_id": pipeline})
        self.files[made["pipeline_version_id"]] = content
        return made

    def _run(self, asked: dict[str, Any]) -> dict[str, Any]:
        more = {"state": "PENDING", "storage_state": "AVAILABLE"}
        run = self._made(self.runs, "run_id", asked | more)
        self._started(run)
        return run

    def _act(self, rest: str) -> dict[str, Any] | None:
        name, _, action = rest.partition(":")
        run = self.runs.get(name)
        if run is None:
            return None
        run.update({"terminate": {"state": "CANCELED"}, "archive": {"storage_state": "ARCHIVED"}}[action])
        return {}

    def _made(self, among: dict[str, dict[str, Any]], key: str, content: dict[str, Any]) -> dict[str, Any]:
        name = str(uuid4())
        at = self._clock.now().astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        among[name] = {**content, key: name, "created_at": at}
        return among[name]


def _listed(name: str, among: dict[str, dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """A page, the oldest first; its filters are those of `filter.proto`, as far as we ask."""
    predicates = json.loads(query.get("filter") or "{}").get("predicates", [])
    found = [one for one in among.values() if all(_holds(predicate, one) for predicate in predicates)]
    first, size = int(query.get("page_token") or 0), int(query.get("page_size") or len(found) or 1)
    more = {"next_page_token": str(first + size)} if first + size < len(found) else {}
    return {name: found[first : first + size], "total_size": len(found), **more}


def _holds(predicate: dict[str, Any], one: dict[str, Any]) -> bool:
    key, operation = predicate["key"], predicate["operation"]
    if key not in _FIELDS:
        raise ValueError(f"KFP does not filter by {key!r}")
    if key == "created_at":
        return operation == "GREATER_THAN_EQUALS" and _moment(one[key]) >= _moment(predicate["timestamp_value"])
    wanted = predicate.get("string_value", predicate.get("stringValue"))
    # By name, or by number, as its own client writes it; its database looks at no capital letters.
    is_equal = str(one.get({"name": "display_name"}.get(key, key), "")).lower() == str(wanted).lower()
    return {"EQUALS": is_equal, 1: is_equal, "NOT_EQUALS": not is_equal, 2: not is_equal}[operation]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
