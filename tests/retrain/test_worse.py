"""A worse model is stopped, by the gate that was made for it, with a message that says so. Real training, real ONNX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from tidemill.artifacts import read, verify, write
from tidemill.core.clock import SystemClock
from tidemill.evaluation.gates import GateVerdict, judge
from tidemill.events.records import Decision, Request
from tidemill.retrain import data, version
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import events_frame, labels_frame, tiny_resource
from tidemill.training.frozen import freeze, frozen_folder
from tidemill.training.snapshot import Snapshot

FIRST = Grant(run=RUN, token="t", expires_at=0)


@pytest.fixture(autouse=True)
def _code(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site.code)


def place_of(site: Site) -> Place:
    def ask(request: Request, deadline_s: float) -> Decision:
        raise AssertionError("nothing is asked of control")

    registry = MemoryRegistry(SystemClock())
    return Place(
        resource=site.resource,
        lake=site.lake,
        root=site.artifacts,
        clock=SystemClock(),
        ask=ask,
        registry=lambda: registry,
    )


def trained(site: Site, granted: Grant) -> Snapshot:
    taken = data.snapshot(place_of(site), granted)
    version.train(place_of(site), granted, taken)
    return taken


def next_grant(site: Site) -> Grant:
    return Grant(run="r2", token="t", expires_at=0, champion=RUN, champion_artifact=str(site.version()))


def verdicts(site: Site, granted: Grant, taken: Snapshot) -> dict[str, GateVerdict]:
    found = version.evaluate(place_of(site), granted, taken)
    return {one.gate: one for one in judge(site.resource.spec.gates, found)}


def changed(site: Site, change: Callable[[onnx.ModelProto], None]) -> tuple[Grant, Snapshot]:
    """A candidate that is the champion's model, changed; and the snapshot that they are compared on."""
    taken, manifest = trained(site, FIRST), verify(site.version())
    model = onnx.load_from_string(read(site.version(), manifest, "model.onnx"))
    change(model)
    files: dict[str, bytes | Path] = {"model.onnx": model.SerializeToString()}
    write(site.version("r2"), files, msgspec.structs.replace(manifest, version="r2", run="r2"))
    return next_grant(site), taken


def with_nan(model: onnx.ModelProto) -> None:
    """One weight in all is no number."""
    weights = model.graph.initializer[0]
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))


def with_one_row(model: onnx.ModelProto) -> None:
    """The answers of all rows as one."""
    (node,) = (node for node in model.graph.node if "logits" in node.output)
    node.output[0] = "each"
    axes = numpy_helper.from_array(np.array([0]), "axes")
    model.graph.initializer.append(axes)
    model.graph.node.append(helper.make_node("ReduceMean", ["each", "axes"], ["logits"], keepdims=1))
    shape: list[Any] = [1, 2]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))


def test_nan_weights_are_refused_by_the_gate_of_answers(filled: Site) -> None:
    found = verdicts(filled, *changed(filled, with_nan))["answers"]
    assert found.passed is False
    assert found.reason.startswith("60 of 60 rows have no answer as declared")
    assert "confidence should be a number in [0, 1]" in found.reason


def test_a_wrong_output_shape_is_refused_by_the_gate_of_answers(filled: Site) -> None:
    found = verdicts(filled, *changed(filled, with_one_row))["answers"]
    assert found.passed is False
    assert "should return a list of 60 answers, not 1 answers" in found.reason


def test_outputs_of_another_shape_than_the_codec_reads_go_through_training_to_the_gate(
    filled: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shaped.py").write_text(
        "import tiny_model\n\nclass Codec(tiny_model.Codec):\n    def decode(self, outputs):\n"
        "        return super().decode({'logits': outputs['logits'][:, :, 0]})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = {"codec": "shaped:Codec", "trainer": "tiny_model:Trainer"}
    filled.put(tiny_resource(filled.resource.metadata.name, model=model))
    found = verdicts(filled, FIRST, trained(filled, FIRST))["answers"]
    assert found.passed is False
    assert "60 of 60 rows have no answer as declared: shaped:Codec.decode raised IndexError" in found.reason


def test_label_noise_is_refused_by_the_gate_of_fresh_rows(filled: Site) -> None:
    trained(filled, FIRST)
    events = events_frame(1500, first=400)
    noisy = (
        pl.when(pl.col("offset") % 2 == 0).then(pl.lit('{"defect": "scratch"}')).otherwise(pl.lit('{"defect": "ok"}'))
    )
    labels = labels_frame(events).with_columns(value=pl.when(pl.col("offset") < 1800).then(noisy).otherwise("value"))
    filled.fill(events, labels)
    granted = next_grant(filled)
    found = verdicts(filled, granted, trained(filled, granted))
    assert found["answers"].passed is True
    assert found["fresh"].passed is False
    assert "that is worse by more than the margin of 0.05" in found["fresh"].reason


def always_scratch(model: onnx.ModelProto) -> None:
    """The last layer's bias says one class, whatever comes."""
    (node,) = (node for node in model.graph.node if "logits" in node.output)
    (bias,) = (one for one in model.graph.initializer if one.name == node.input[-1])
    bias.CopyFrom(numpy_helper.from_array(np.array([-100, 100], dtype=np.float32), bias.name))


def test_a_class_that_was_forgotten_is_refused_by_the_frozen_gate_though_it_comes_no_more(filled: Site) -> None:
    """All the newest rows are of the other class: there is nothing in them to see."""
    gates = {"fresh": {"rows": 60, "margin": 0.05}, "frozen": {"dataset": "golden", "metric": "recall", "atLeast": 0.5}}
    filled.put(tiny_resource(filled.resource.metadata.name, gates=gates))
    granted, taken = changed(filled, always_scratch)
    freeze(
        frozen_folder(filled.version()),
        "golden",
        taken,
        taken.frame(),
        query="all",
        by="a test",
        now=SystemClock().now(),
    )
    bright = events_frame(400, first=400).filter(pl.col("offset") % 2 == 1)
    filled.fill(bright, labels_frame(bright))
    found = verdicts(filled, granted, data.snapshot(place_of(filled), granted))
    assert found["answers"].passed is found["fresh"].passed is True
    assert found["frozen"].passed is False
    assert "recall 0.500 against the champion's" in found["frozen"].reason
    assert found["frozen.atLeast"].passed is False


def test_a_frozen_gate_without_its_dataset_says_how_to_make_it(filled: Site) -> None:
    filled.put(
        tiny_resource(filled.resource.metadata.name, gates={"fresh": {"rows": 60}, "frozen": {"dataset": "golden"}})
    )
    found = verdicts(filled, FIRST, trained(filled, FIRST))["frozen"]
    assert found.passed is False
    assert "there is no frozen dataset golden" in found.reason
    assert "tidemill dataset freeze" in found.reason
