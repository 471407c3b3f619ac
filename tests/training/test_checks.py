"""The data gates: each worse dataset is stopped by the gate made for it, and an honest one by none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidemill.core.errors import InvalidInput
from tidemill.spec.model import ContinualModel
from tidemill.testing.training import snapshot_record, snapshot_rows, tiny_resource
from tidemill.training.checks import enforce, judge_data
from tidemill.training.resolved import WORDS
from tidemill.training.snapshot import write_snapshot
from tidemill.training.verdict import GateVerdict

CODE = {"name": "code", "type": "string", "required": False}


def with_code(**field: Any) -> ContinualModel:
    fields = [{"name": "image", "type": "image"}, CODE | field]
    return tiny_resource(events={"entity": {"name": "station"}, "timestamp": "t", "id": "event_id", "fields": fields})


def judged(
    folder: Path,
    rows: pl.DataFrame,
    resource: ContinualModel | None = None,
    *,
    words: pl.DataFrame | None = None,
    frozen: pl.DataFrame | None = None,
    skip: bool = False,
    **record: Any,
) -> dict[str, GateVerdict]:
    taken = write_snapshot(folder, rows, pl.DataFrame({"brightness": [0.5]}), snapshot_record(rows, **record), words)
    verdicts = judge_data(taken, resource or tiny_resource(), frozen=frozen, skip=skip)
    return {one.gate: one for one in verdicts}


def refusals(found: dict[str, GateVerdict]) -> set[str]:
    return {gate for gate, one in found.items() if one.passed is False}


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return snapshot_rows(tiny_resource(), 600, fresh=60)


def said_by_two(flipped: float) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    truth = rng.random(200) < 0.5
    said = [
        ("s", f"e{number}", who, json.dumps({"defect": "scratch" if one else "ok"}), False)
        for who in ("ann", "bob")
        for number, one in enumerate(truth ^ (rng.random(200) < flipped))
    ]
    return pl.DataFrame(said, schema=WORDS, orient="row")


def test_an_honest_dataset_is_refused_by_no_gate_and_a_strong_feature_is_a_warning(
    tmp_path: Path, rows: pl.DataFrame
) -> None:
    found = judged(tmp_path, rows, words=said_by_two(0.01))
    assert refusals(found) == set()
    assert found["data.leakage"].reason.startswith("warning: brightness alone is right in 100.0%")
    enforce(tuple(found.values()))


def test_label_noise_is_stopped_by_agreement(tmp_path: Path, rows: pl.DataFrame) -> None:
    found = judged(tmp_path, rows, words=said_by_two(0.3))
    assert refusals(found) == {"data.agreement"}
    with pytest.raises(InvalidInput, match=r"data\.agreement: labellers of 200 events agree on defect by alpha 0\.\d+"):
        enforce(tuple(found.values()))


def test_few_events_with_two_labellers_do_not_refuse(tmp_path: Path, rows: pl.DataFrame) -> None:
    few = said_by_two(0.3).filter(pl.col("event_id").str.len_chars() == 2)
    assert judged(tmp_path, rows, words=few)["data.agreement"].reason.startswith("warning: ")


def test_an_input_that_states_the_label_is_stopped_by_leakage(tmp_path: Path, rows: pl.DataFrame) -> None:
    leaking = rows.with_columns(code=pl.when(pl.col("label").str.contains("scratch")).then(pl.lit("S1")))
    found = judged(tmp_path, leaking, with_code())
    assert refusals(found) == {"data.leakage"}
    assert "code states the label in each of 600 rows" in found["data.leakage"].reason
    honest = leaking.with_columns(code=pl.when(pl.col("offset") == 7).then(pl.lit(None)).otherwise("code"))
    assert refusals(judged(tmp_path, honest, with_code())) == set()


def test_a_forgotten_class_is_stopped_by_classes(tmp_path: Path, rows: pl.DataFrame) -> None:
    found = judged(tmp_path, rows.filter((pl.col("part") == "fresh") | pl.col("label").str.contains("ok")))
    assert refusals(found) == {"data.classes"}
    assert "training rows of class scratch (0)" in found["data.classes"].reason


def test_rows_outside_the_resource_are_stopped_by_schema_where_they_are_many(
    tmp_path: Path, rows: pl.DataFrame
) -> None:
    narrow = with_code(enum=["a"])
    one = rows.with_columns(code=pl.when(pl.col("offset") == 3).then(pl.lit("b")).otherwise(pl.lit("a")))
    found = judged(tmp_path, one, narrow)["data.schema"]
    assert found.passed
    assert "1 of 600 rows have code outside its enum, such as event e3 with 'b'" in found.reason
    assert refusals(judged(tmp_path, one.with_columns(code=pl.lit("b")), narrow)) == {"data.schema"}
    assert "the rows have no code" in judged(tmp_path, rows, narrow)["data.schema"].reason


def test_rows_that_judge_are_not_trained_on(tmp_path: Path, rows: pl.DataFrame) -> None:
    frozen = rows.head(3).select("entity", "event_id")
    found = judged(tmp_path, rows, frozen=frozen)["data.leakage"]
    assert found.passed is False
    assert "3 events are both trained on and in the frozen dataset" in found.reason


def test_events_sent_again_under_other_ids_are_stopped_by_duplicates(tmp_path: Path, rows: pl.DataFrame) -> None:
    again = rows.tail(60).with_columns(image=rows["image"].head(60), label=rows["label"].head(60))
    assert refusals(judged(tmp_path, pl.concat([rows.head(540), again]))) == {"data.duplicates"}


def test_too_few_rows_and_labels_that_do_not_fit_are_told(tmp_path: Path, rows: pl.DataFrame) -> None:
    found = judged(tmp_path, rows.tail(70))
    assert "10 rows to train on, at least 50" in found["data.rows"].reason
    assert refusals(judged(tmp_path, rows, invalid_labels=60)) == {"data.labels"}


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path, rows: pl.DataFrame) -> None:
    broken = rows.with_columns(image=pl.when(pl.col("offset") < 90).then(pl.lit(b"no picture")).otherwise("image"))
    found = judged(tmp_path, broken)["data.pictures"]
    assert found.passed is False
    assert "30 of 200 pictures cannot be read: e0 (" in found.reason


def test_skipped_gates_are_shown_but_for_those_without_which_nothing_is_trained(
    tmp_path: Path, rows: pl.DataFrame
) -> None:
    found = judged(tmp_path, rows, words=said_by_two(0.3), skip=True)
    enforce(tuple(found.values()))
    assert found["data.agreement"].reason.endswith("(skipped by force)")
    with pytest.raises(InvalidInput, match=r"data\.rows"):
        enforce(tuple(judged(tmp_path, rows.tail(70), skip=True).values()))
