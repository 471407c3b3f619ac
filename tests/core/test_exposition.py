"""A process's metrics over HTTP."""

import os
from pathlib import Path

import pytest
from prometheus_client import Counter

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.exposition import metrics_addresses, read_metrics, serve_metrics
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
