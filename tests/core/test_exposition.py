"""A process's metrics over HTTP."""

import json
import os
from pathlib import Path

import pytest
from prometheus_client import Counter

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.exposition import (
    Told,
    forget_metrics,
    metrics_addresses,
    metrics_told,
    note_metrics,
    read_metrics,
    serve_metrics,
    write_targets,
)
from tidemill.core.settings import Settings
from tidemill.core.telemetry import REGISTRY

SEEN = Counter("tidemill_test_seen", "Seen by this test.", ["of"], registry=REGISTRY)


def test_metrics_are_told_at_a_free_port_that_can_be_found(tmp_path: Path) -> None:
    SEEN.labels("a").inc(3)
    address = serve_metrics(Settings(state=tmp_path), "default.m-ingest", REGISTRY)
    assert address is not None
    assert metrics_addresses(tmp_path) == {("default.m-ingest", os.getpid()): address}
    assert ({"of": "a"}, 3) in read_metrics(address)["tidemill_test_seen_total"]


def test_none_are_told_where_they_are_off(tmp_path: Path) -> None:
    assert serve_metrics(Settings(state=tmp_path, metrics_port="off"), "m", REGISTRY) is None
    assert metrics_addresses(tmp_path) == {}


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    address = serve_metrics(Settings(state=tmp_path), "one", REGISTRY)
    assert address is not None
    port = int(address.rpartition(":")[2])
    with pytest.raises(InvalidInput, match=f"at port {port}"):
        serve_metrics(Settings(state=tmp_path, metrics_port=port), "other", REGISTRY)


def test_a_process_that_has_ended_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="do not answer"):
        read_metrics("127.0.0.1:9")


def targets(state: Path) -> list[tuple[str, str, str, str]]:
    """Address, process, role and model of each, as Prometheus reads them."""
    found = json.loads((state / "prometheus" / "targets.json").read_text())
    return [(*one["targets"], *(one["labels"][name] for name in ("process", "role", "model"))) for one in found]


def test_a_process_says_who_it_is(tmp_path: Path) -> None:
    note_metrics(tmp_path, "default.m-serve-v1", "127.0.0.1:7", role="serve", model="default.m")
    serve_metrics(Settings(state=tmp_path), "control", REGISTRY)
    control, serve = metrics_told(tmp_path)
    assert serve == Told("default.m-serve-v1", os.getpid(), "127.0.0.1:7", "serve", "default.m")
    assert (control.role, control.model) == ("control", "")


def test_prometheus_is_told_of_those_that_are_wanted_dead_or_alive(tmp_path: Path) -> None:
    note_metrics(tmp_path, "control", "127.0.0.1:8", role="control")
    note_metrics(tmp_path, "default.m-watch", "127.0.0.1:9", role="watch", model="default.m")  # nobody is there
    write_targets(tmp_path, {"control", "default.m-watch", "default.m-ingest"})
    watch = ("127.0.0.1:9", "default.m-watch", "watch", "default.m")
    assert targets(tmp_path) == [("127.0.0.1:8", "control", "control", ""), watch]
    note_metrics(tmp_path, "control", "127.0.0.1:10", role="control")
    forget_metrics(tmp_path, "default.m-watch")
    write_targets(tmp_path, {"control", "default.m-watch"})
    assert targets(tmp_path) == [("127.0.0.1:10", "control", "control", "")]
    write_targets(tmp_path, ())
    assert targets(tmp_path) == []


def test_targets_are_written_only_where_they_change(tmp_path: Path) -> None:
    note_metrics(tmp_path, "control", "127.0.0.1:8", role="control")
    write_targets(tmp_path, {"control"})
    file = tmp_path / "prometheus" / "targets.json"
    before = file.stat().st_ino
    write_targets(tmp_path, {"control"})
    assert file.stat().st_ino == before
