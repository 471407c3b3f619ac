"""What each image would hold, made here without a container engine: an environment per target, its commands run in it.

    python .ci/images.py [TARGET...]        default: every target of the Dockerfile

An environment is made by the line of the Dockerfile that makes it there. Each command of a role is started with
services that are not there: it must come as far as to miss one, or to wait for one, and miss no module on the way.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".bootstrap/bin/uv"
PATIENCE_S = 90
RESOURCE = """\
apiVersion: tidemill.dev/v1alpha1
kind: ContinualModel
metadata: {name: prices}
spec:
  events:
    topic: prices.events
    entity: {name: market}
    id: event_id
    timestamp: at
    fields: [{name: demand, type: float}]
  prediction: {type: classification, classes: [up, down]}
  labels: {topic: prices.labels, fields: [{name: moved, type: class}], maturity: {after: 1h, horizon: 1d}}
  model: {codec: "user:Codec", trainer: "user:Trainer"}
"""
OF_A_MODEL = ("--resource", "resource.yaml")
PORT = ("--port", "18437")  # one after the other, so one is enough
SERVE = ("tidemill", "serve", *OF_A_MODEL, "--version", "v1", "--artifact", "nowhere", *PORT)
# The server looks for the version's files before it needs what it serves them with.
SERVER = ("python", "-c", "import tidemill.serving.server, tidemill.serving.service, kserve, onnxruntime")
# KFP's launcher starts a step with a module of kfp; what the step itself needs is what these import.
NEEDED = "kfp.dsl.executor_main, tidemill.retrain.pipeline, tidemill.retrain.steps, mlflow, torch, onnxruntime"
STEP = ("python", "-c", f"import {NEEDED}")
COMMANDS = {
    "operator": [("tidemill", "operator")],
    "feast": [("python", "-m", "tidemill.features.apply", *OF_A_MODEL), ("feast", "version")],
    "ingest": [("tidemill", "ingest", *OF_A_MODEL)],
    "outcomes": [("tidemill", "outcomes", *OF_A_MODEL)],
    "watch": [("tidemill", "watch", *OF_A_MODEL)],
    "alerts": [("tidemill", "alerts", "run", *OF_A_MODEL)],
    "feedback": [("tidemill", "feedback", *PORT)],
    "dashboard": [("tidemill", "dashboard", *PORT)],
    "serve": [SERVE, SERVER],
    "pipelines": [STEP],
    "model": [STEP, SERVE, SERVER],
}


def main(targets: list[str]) -> None:
    """Make and try each; exit status 1 if one misses something."""
    text = (ROOT / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM role AS (\w+)\nCOPY --from=with-(\w+) ", text, re.MULTILINE))
    extras = dict(re.findall(r'^FROM source AS with-(\w+)\nRUN \${INSTALL} "\.\[([a-z,]+)\]"$', text, re.MULTILINE))
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Path] = {}
        for target in targets or sorted(stages):
            stage = stages[target]
            if stage not in made:
                made[stage] = _environment(Path(folder) / stage, extras[stage])
            for command in COMMANDS[target]:
                bad += not _starts(target, made[stage], command)
    sys.exit(1 if bad else 0)


def _environment(folder: Path, extras: str) -> Path:
    """The environment that the stage would have."""
    for arguments in (
        ("venv", "--quiet", "--python", sys.executable, folder),
        ("pip", "install", "--quiet", "--python", folder, "--constraint", ".ci/requirements.txt", f".[{extras}]"),
    ):
        subprocess.run([UV, *arguments], cwd=ROOT, check=True)
    return folder


def _starts(target: str, environment: Path, command: tuple[str, ...]) -> bool:
    """Whether the command runs, or ends in words of ours about a service."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "resource.yaml").write_text(RESOURCE)
        try:
            run = subprocess.run(
                [environment / "bin" / command[0], *command[1:]],
                cwd=home, env=_without_services(environment, home), capture_output=True, text=True, timeout=PATIENCE_S,
            )  # fmt: skip
            said, how = run.stdout + run.stderr, f"ends with {run.returncode}"
        except subprocess.TimeoutExpired as error:
            said = "".join(part.decode(errors="replace") for part in (error.stdout, error.stderr) if part)
            how = "waits"
    missed = "Traceback" in said or "ModuleNotFoundError" in said or (how == "waits" and not said)
    last = (said.strip().splitlines() or [""])[-1]
    state = "MISSED" if missed else "starts"
    print(f"{target:<10} {state}  {' '.join(command[:3]):<34} {how}: {last[:200]}", flush=True)
    if missed:
        print(said[-3000:])
    return not missed


def _without_services(environment: Path, home: str) -> dict[str, str]:
    nowhere = "127.0.0.1:1"
    return {
        "PATH": f"{environment}/bin:{os.defpath}", "HOME": home, "KUBECONFIG": f"{home}/none",
        "TIDEMILL_KAFKA": nowhere, "TIDEMILL_REDIS": f"redis://{nowhere}/0", "TIDEMILL_STATE": f"{home}/state",
        "TIDEMILL_MLFLOW": f"http://{nowhere}", "TIDEMILL_KFP": f"http://{nowhere}",
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
