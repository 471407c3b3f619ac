"""A version that is served by a process of its own, and requests to it. torch cannot be imported in it."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from tidemill.spec.model import ContinualModel
from tidemill.stack.ports import free_ports
from tidemill.testing.serving import instance

SERVE = """
import json, sys
from pathlib import Path
sys.modules["torch"] = None  # importing it fails
import yaml
from tidemill.core.clock import SystemClock
from tidemill.core.errors import TidemillError
from tidemill.serving.server import run
from tidemill.spec.model import ContinualModel

file, given = sys.argv[1], json.loads(sys.argv[2])
if "feast_repo" in given:
    given["feast_repo"] = Path(given["feast_repo"])
try:
    run(ContinualModel.model_validate(yaml.safe_load(open(file).read())), clock=SystemClock(), **given)
except TidemillError as error:
    sys.exit(f"error: {error.message}")
"""
NO_BROKER = "127.0.0.1:1"
NO_REDIS = "redis://127.0.0.1:1/0"


class Server:
    """A serving process, and a client of it."""

    def __init__(self, folder: Path, code: Path, resource: ContinualModel, **given: Any) -> None:
        self.resource, self.folder = resource, folder
        (self.port,) = free_ports(1)
        file = folder / "model.yaml"
        file.write_text(yaml.safe_dump(resource.model_dump(mode="json", by_alias=True, exclude_unset=True)))
        self.given = {"version": "v1", "artifact": str(folder / "v1"), "port": self.port} | given
        self.log = folder / "serve.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(file), json.dumps(self.given)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")])},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=30)

    @property
    def name(self) -> str:
        return self.resource.metadata.name

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def predict(self, *instances: Any, **more: Any) -> httpx.Response:
        return self.http.post(f"/v1/models/{self.name}:predict", json={"instances": list(instances)}, **more)

    def infer(self, body: dict[str, Any], **more: Any) -> httpx.Response:
        return self.http.post(f"/v2/models/{self.name}/infer", json=body, **more)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def started(tmp_path: Path, code: Path, resource: ContinualModel, **given: Any) -> Server:
    return Server(tmp_path, code, resource, **({"kafka": NO_BROKER, "redis": NO_REDIS} | given))


def columns(*rows: dict[str, Any]) -> dict[str, Any]:
    """A V2 request in JSON."""
    types = {"station": "BYTES", "event_id": "BYTES", "image": "BYTES", "exposure_ms": "FP64"}
    return {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [len(rows)], "data": [row[name] for row in rows]}
            for name, datatype in types.items()
        ]
    }


def in_binary(server: Server, image: bytes) -> httpx.Response:
    """A V2 request whose image is a binary tensor, and which asks for binary tensors."""
    tensor = struct.pack("<I", len(image)) + image
    inputs = columns(instance())["inputs"]
    for one in inputs:
        if one["name"] == "image":
            del one["data"]
            one["parameters"] = {"binary_data_size": len(tensor)}
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return server.http.post(
        f"/v2/models/{server.name}/infer",
        content=head + tensor,
        headers={"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"},
    )
