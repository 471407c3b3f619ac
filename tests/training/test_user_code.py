"""The user's classes, and how their failures are told."""

import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.core.errors import InvalidInput, UserCodeError
from tidemill.training.tensors import encode
from tidemill.training.user_code import load_codec, load_trainer, user_code

BROKEN = """
class Codec:
    def encode(self, rows):
        return helper(rows)
    def decode(self, outputs):
        return []
    def targets(self, labels):
        return {}

def helper(rows):
    return rows["no such row"]

class Refusing(Codec):
    def encode(self, rows):
        raise ValueError("only pictures, please")

class Shapeless(Codec):
    def encode(self, rows):
        import numpy
        return {"image": numpy.zeros((1, 2))}

class Unmade(Codec):
    def __init__(self):
        raise RuntimeError("no configuration")

class Halved:
    def encode(self, rows):
        return {}

value = 3
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"broken_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(BROKEN)
    (tmp_path / f"{name}_importing.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_classes_are_found_by_module_and_name() -> None:
    assert load_codec("tiny_model:Codec").targets([{"defect": "scratch"}])["class"].tolist() == [1]
    assert load_trainer("tiny_model:Trainer").epochs == 4


def test_a_failure_is_told_with_class_method_message_and_the_users_line(broken: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        encode(load_codec(f"{broken}:Codec"), [{}])
    message = caught.value.message
    assert f"{broken}:Codec.encode raised TypeError" in message
    assert f"{broken}.py" in message
    assert 'return rows["no such row"]' in message


def test_a_row_that_the_codec_refuses_is_bad_input_and_not_bad_code(broken: str) -> None:
    with pytest.raises(InvalidInput, match="only pictures, please"):
        encode(load_codec(f"{broken}:Refusing"), [{}])


def test_tensors_of_other_than_one_row_each_are_refused(broken: str) -> None:
    with pytest.raises(UserCodeError, match=r"Shapeless\.encode: image should be an array of 3 rows.*\(1, 2\)"):
        encode(load_codec(f"{broken}:Shapeless"), [{}, {}, {}])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:Codec", "there is no module no_such_module"),
        ("{}:Missing", "has no class Missing"),
        ("{}:value", "has no class value"),
        ("{}:Unmade", "raised RuntimeError: no configuration"),
        ("{}:Halved", "has no decode"),
        ("{}_importing:Codec", "a_module_that_is_not_there"),
    ],
)
def test_what_cannot_be_loaded_is_told(broken: str, path: str, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        load_codec(path.format(broken))


def test_our_own_errors_pass_as_they_are() -> None:
    with pytest.raises(InvalidInput, match="ours"), user_code(object(), "method"):
        raise InvalidInput("ours")


def test_training_and_the_predictor_import_without_torch() -> None:
    """Serving comes through these modules, and its image has no torch."""
    names = ["", ".predictor", ".fit", ".export", ".snapshot", ".dataset", ".checks", ".weights"]
    program = "import sys; sys.modules['torch'] = None\n" + "\n".join(
        f"import tidemill.training{name}" for name in names
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
