"""KServe without its Kubernetes client and pandas, and nothing of it lost."""

import subprocess
import sys

import pytest

from tidemill.serving import kserve_import


def run(code: str, *arguments: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOAD = "import sys; from tidemill.serving.kserve_import import kserve_parts; parts = kserve_parts(); "


def test_neither_heavy_imports_nor_our_arguments_reach_it() -> None:
    heavy = "{'pandas', 'kubernetes', 'torch', 'kserve.api.kserve_client', 'kserve.models'}"
    code = LOAD + f"print(sorted({heavy} & set(sys.modules)), end=' '); "
    code += "print(parts.ModelServer(enable_grpc=False).http_port, sys.argv[1:])"
    assert run(code, "--http_port", "1234") == "[] 8080 ['--http_port', '1234']"


def test_the_whole_of_kserve_and_pandas_are_there_once_something_asks_for_them() -> None:
    code = LOAD + "tensor = parts.InferInput('a', [2], 'INT32', [1, 2]); "
    code += "frame = parts.InferRequest('m', [tensor]).as_dataframe(); import pandas; "
    code += "print(type(frame) is pandas.DataFrame, frame['a'].tolist()); "
    code += "import kserve; print(kserve.KServeClient.__name__, kserve.Model is parts.Model)"
    assert run(code) == "True [1, 2]\nKServeClient True"


def test_what_was_imported_before_stays_as_it_is() -> None:
    code = "import pandas, kserve; before = kserve.Model; "
    assert run(code + LOAD + "print(parts.Model is before, sys.modules['pandas'] is pandas)") == "True True"


def test_without_kserve_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.core.errors import Unsupported

    monkeypatch.setattr(kserve_import, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "modules", {})
    with pytest.raises(Unsupported) as caught:
        kserve_import.kserve_parts()
    assert caught.value.hint == "pip install 'tidemill[serving]'"
