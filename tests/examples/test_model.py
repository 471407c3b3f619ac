"""The user's two classes: small, free of torch where they serve, exportable, and able to learn."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspection.model import Codec, Trainer
from inspection.render import NORMAL, STATIONS, Picture, render

from tidemill.metrics.losses import error
from tidemill.spec.load import load
from tidemill.training.export import export
from tidemill.training.fit import fit

MOST_LINES = 40


def drawn(count: int, seed: int = 1) -> list[Picture]:
    return render(np.random.default_rng(seed), [STATIONS[number % 3] for number in range(count)], NORMAL)


def rows(pictures: list[Picture]) -> list[dict[str, Any]]:
    return [{"image": picture.jpeg} for picture in pictures]


def labels(pictures: list[Picture]) -> list[dict[str, Any]]:
    return [{"defect": one.defect, "box": None if one.box is None else list(one.box)} for one in pictures]


def test_the_resource_is_valid_and_names_these_classes(example: Path) -> None:
    resource = load(example / "model.yaml")
    assert (resource.spec.model.codec, resource.spec.model.trainer) == (
        "inspection.model:Codec",
        "inspection.model:Trainer",
    )
    assert len((example / "model.yaml").read_text().splitlines()) <= MOST_LINES


def test_both_classes_together_are_at_most_forty_lines(example: Path) -> None:
    source = (example / "inspection" / "model.py").read_text()
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    lines = [
        line for node in classes for line in source.splitlines()[node.lineno - 1 : node.end_lineno] if line.strip()
    ]
    assert [node.name for node in classes] == ["Codec", "Trainer"]
    assert len(lines) <= MOST_LINES


def test_the_codec_works_without_torch(example: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from inspection.model import Codec\n"
        "print(Codec().decode({'score': np.zeros(1) - 3, 'box': np.zeros((1, 4))})[0]['class'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(example)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "ok", done.stderr


def test_an_answer_is_the_likelier_class_with_a_box_only_for_a_scratch() -> None:
    outputs = {"score": np.array([4.0, -4.0]), "box": np.array([[1.0, 2.0, 30.04, 40.0]] * 2)}
    scratch, ok = Codec().decode(outputs)
    assert (scratch["class"], scratch["box"]) == ("scratch", [1.0, 2.0, 30.0, 40.0])
    assert (ok["class"], ok["box"]) == ("ok", None)
    assert scratch["confidence"] == pytest.approx(ok["confidence"]) == pytest.approx(0.982, abs=1e-3)


def test_targets_are_what_the_final_check_found() -> None:
    found = Codec().targets([{"defect": "scratch", "box": [1, 2, 3, 4]}, {"defect": "ok", "box": None}])
    assert found["scratched"].tolist() == [1, 0]
    assert found["box"].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        Codec().encode([{"image": b"no picture"}])


def test_the_network_is_exported_for_batches_of_any_size() -> None:
    sample = Codec().encode(rows(drawn(3)))
    exported = export(Trainer().module().eval(), sample)
    assert [spec.name for spec in exported.inputs] == ["image"]
    assert {spec.name for spec in exported.outputs} == {"score", "box"}
    assert all(spec.shape[0] is None for spec in (*exported.inputs, *exported.outputs))


@pytest.mark.slow
def test_it_learns_to_find_scratches(example: Path) -> None:
    import torch

    resource, codec, pictures = load(example / "model.yaml"), Codec(), drawn(1000)
    fitted = fit(Trainer(), codec, rows(pictures), labels(pictures), seed=1, device="cpu")
    unseen = drawn(200, seed=2)
    with torch.inference_mode():
        outputs = fitted.module(torch.from_numpy(codec.encode(rows(unseen))["image"]))
    answers = codec.decode({name: tensor.numpy() for name, tensor in outputs.items()})
    spec = resource.spec
    wrong = [error(spec.prediction, spec.labels.fields, *pair) for pair in zip(answers, labels(unseen), strict=True)]
    assert np.mean(wrong) < 0.35  # half of the phones are scratched, and a box that is guessed is wrong
