"""Warm processes: what the steps import is imported once, while the first of them run, and each step is a fork.

Each step of the local runner is a process of its own, and most of its time went into imports: together 9 s of CPU
for a run whose work took 2 s (torch 1.6 s, MLflow 3 s, 0.4-0.9 s in each of the others). A run on one machine
therefore starts this module beside itself, as three processes, each forked from the one before when that has what its
own steps need:

    light      claim, snapshot, validate, gate, propose
    torch      train, evaluate
    registry   register

A component connects to the socket of its step's process, sends the step's name and arguments together with its own
stdout and stderr, and waits; the process forks, and the fork runs the step. Nothing but imports happens before the
fork, so that no connection or pool is shared, and a test holds what threads there are then: those of allocators,
which know about forks, and an idle one of Polars. Without these processes (on a cluster, not on Linux, or
if they did not start) a step runs where it is called.
"""

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["FOLDER", "START", "Handed", "hand_over", "start"]

FOLDER = "TIDEMILL_WARM"
"""Environment variable with the folder of the sockets."""
START = "TIDEMILL_WARM_START"
"""Environment variable; `never`: each step imports for itself."""

_PROCESS_OF = {"train": "torch", "evaluate": "torch", "register": "registry"}
_LIGHT = "light"
_IMPORTS = {
    _LIGHT: (
        "tidemill.control.ask",
        "tidemill.control.provision",
        "tidemill.retrain.data",
        "tidemill.retrain.lineage",
        "tidemill.retrain.steps",
        "tidemill.spec.load",
        "tidemill.wiring",
    ),
    "torch": (
        "torch",
        "torch.onnx",
        "safetensors.torch",
        "tidemill.retrain.version",
        "tidemill.training.export",
        "tidemill.training.fit",
        "tidemill.training.predictor",
        "tidemill.watch.reference",
    ),
    "registry": ("tidemill.registry.mlflow_client",),
}
"""By process, in the order of need: each has the imports of those before it, too."""
_LONGEST_MESSAGE = 1 << 20


class Handed:
    """A step that runs in a fork of a warm process."""

    def __init__(self, step: str, connection: socket.socket) -> None:
        self._step, self._connection = step, connection

    def result(self) -> Any:
        """Wait for the step's result; raises `RuntimeError` where it failed, whose traceback is in the output."""
        with self._connection, self._connection.makefile("rb") as answers:
            line = answers.readline()
        if not line:
            raise RuntimeError(f"the process that ran {self._step} died")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


def hand_over(step: str, arguments: Mapping[str, Any]) -> Handed | None:
    """Give a step to its warm process; None where there is none that takes it."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with ExitStack() as stack:
            connection.connect(_address(Path(folder), _PROCESS_OF.get(step, _LIGHT), stack))
        sys.stdout.flush()
        message = json.dumps({"step": step, "arguments": dict(arguments)}).encode()
        socket.send_fds(connection, [message], [1, 2])
        # A process that ends before it forks has done nothing yet: then the step can safely run here.
        if connection.recv(1) == b"+":
            return Handed(step, connection)
    except OSError as error:
        print(f"{step} runs without a warm process: {error}", flush=True)
    connection.close()
    return None


def start(folder: Path) -> "subprocess.Popen[bytes] | None":
    """Start the warm processes, with their sockets in `folder`; None where they cannot be.

    They are in this process's group, and end when this process closes their stdin or dies.
    """
    if sys.platform != "linux" or os.environ.get(START) == "never":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER] = str(folder)
    # A BLAS that is only imported would start its threads, and a fork is for processes without any.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", __name__, str(folder)], stdin=subprocess.PIPE, env=env)


def _main(folder: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork: its step's component does
    # All listen before anything is imported, so that a step which comes early waits.
    listeners = {name: _listen(folder, name) for name in _IMPORTS}
    for name, listener in listeners.items():
        for module in _IMPORTS[name]:
            importlib.import_module(module)
            if select.select([sys.stdin], [], [], 0)[0]:
                os._exit(0)
        # The child goes on to the next imports. Nobody keeps another's socket: where its process dies, whoever waits
        # there must hear of it.
        if os.fork():
            for other in listeners.values():
                if other is not listener:
                    other.close()
            _serve(listener)
        listener.close()
    os._exit(0)


def _listen(folder: Path, name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with ExitStack() as stack:
        listener.bind(_address(folder, name, stack))
    listener.listen(8)
    return listener


def _address(folder: Path, name: str, stack: ExitStack) -> str:
    """A path to the socket that is short enough for a socket's address, however deep the folder lies."""
    number = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, number)
    return f"/proc/self/fd/{number}/{name}"


def _serve(listener: socket.socket) -> NoReturn:
    """Fork for each step that comes, until stdin ends."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _run(connection)
        connection.close()


def _run(connection: socket.socket) -> NoReturn:
    """Run one step in this fork, its output going where its component's goes, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        message, numbers, _, _ = socket.recv_fds(connection, _LONGEST_MESSAGE, 2)
        for number, target in zip(numbers, (1, 2), strict=True):
            os.dup2(number, target)
            os.close(number)
        connection.sendall(b"+")
        connection.sendall(json.dumps(_answer(**json.loads(message))).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _answer(step: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    from tidemill.retrain import steps

    try:
        return {"result": getattr(steps, step)(**arguments)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{step} failed: {error}"}


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
