"""KServe is imported without torch and without our command line."""

import subprocess
import sys

import pytest

from tidemill.core.errors import Unsupported
from tidemill.serving.kserve_import import kserve_parts

LOAD = "import sys; from tidemill.serving.kserve_import import kserve_parts; parts = kserve_parts(); "


def run(code: str, *arguments: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_neither_torch_nor_our_arguments_reach_it() -> None:
    code = LOAD + "print('torch' in sys.modules, parts.ModelServer(enable_grpc=False).http_port, sys.argv[1:])"
    assert run(code, "--http_port", "1234") == "False 8080 ['--http_port', '1234']"


def test_without_kserve_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kserve", None)
    monkeypatch.setitem(sys.modules, "kserve.model_server", None)
    with pytest.raises(Unsupported) as caught:
        kserve_parts()
    assert caught.value.hint == "pip install 'tidemill[serving]'"
