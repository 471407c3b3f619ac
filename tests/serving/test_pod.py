"""`tidemill serve` as a pod runs it: a read-only file system, only TIDEMILL_STATE to write to, ended by SIGTERM."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import yaml
from tests.serving.served import NO_BROKER, NO_REDIS

from tidemill.spec.model import ContinualModel
from tidemill.stack.ports import free_ports
from tidemill.testing import eventually
from tidemill.testing.serving import instance, make_version

# Tells what is written, and where: a read-only file system would refuse it.
PROGRAM = """
import os, sys
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def told(event, given):
    is_open = event == "open" and isinstance(given[0], str)
    if is_open and (set(given[1] or "") & set("wax+") or (given[2] or 0) & WRITING):
        os.write(1, f"{given[0]}\\n".encode())
    elif event in {"os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink"}:
        os.write(1, f"{given[0]}\\n".encode())

sys.addaudithook(told)
from tidemill.cli import main
main(*sys.argv[1:])
"""


def test_it_writes_to_its_state_alone_and_answers_what_it_has_taken_before_it_ends(
    tmp_path: Path, code: Path, resource: ContinualModel
) -> None:
    artifact, file, state = make_version(tmp_path, resource, "v1"), tmp_path / "resource.yaml", tmp_path / "state"
    file.write_text(yaml.safe_dump(resource.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    state.mkdir()
    (port,) = free_ports(1)
    settings = {"STATE": str(state), "KAFKA": NO_BROKER, "REDIS": NO_REDIS, "SERVE_HOST": "0.0.0.0"}  # noqa: S104  # in a pod
    environment = {f"TIDEMILL_{name}": value for name, value in settings.items()}
    environment["PYTHONPATH"] = os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")])
    # As the ServingRuntime and the InferenceService together have it.
    arguments = ["serve", f"--resource={file}", f"--artifact={artifact}", f"--port={port}", "--version", "v1"]
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", PROGRAM, *arguments],
        cwd="/",
        env=environment | {"PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:

        def is_ready() -> bool:
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                return http.get("/v2/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            eventually(is_ready, 120)
            listening = Path(f"/proc/{process.pid}/net/tcp").read_text()
            assert f" 00000000:{port:04X} " in listening, "a pod is reached by its own address"
            path = f"/v1/models/{resource.metadata.name}:predict"
            assert http.post(path, json={"instances": [instance()]}).status_code == 200
            with ThreadPoolExecutor(1) as pool:
                row = instance(exposure_ms=14, note=str(state / "arrived"))
                slow = pool.submit(http.post, path, json={"instances": [row]})
                eventually((state / "arrived").exists)
                process.send_signal(signal.SIGTERM)
                assert slow.result().status_code == 200
            written, errors = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait(10)
    assert process.returncode == 0, errors
    outside = {line for line in written.splitlines() if not line.startswith(str(state))}
    assert outside == set()
