"""Ports: free, kept across restarts, or named when they are taken."""

import json
import socket
from pathlib import Path

import pytest

from tidemill.core.errors import Conflict
from tidemill.stack.ports import free_ports, is_taken, kept_ports


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not any(is_taken(port) for port in ports)


def test_chosen_ports_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = kept_ports(file, ["kafka", "redis"], fixed={})
    assert kept_ports(file, ["kafka", "redis"], fixed={}) == first
    more = kept_ports(file, ["kafka", "redis", "envoy"], fixed={})
    assert first.items() <= more.items()


def test_a_kept_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        file.write_text(json.dumps({"kafka": taken}))
        assert kept_ports(file, ["kafka"], fixed={})["kafka"] != taken


def test_a_port_that_a_person_chose_is_taken_as_it_is_and_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    (port,) = free_ports(1)
    assert kept_ports(file, ["envoy"], fixed={"envoy": port}) == {"envoy": port}
    assert json.loads(file.read_text()) == {}
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        with pytest.raises(Conflict, match=f"port {port}, set for envoy") as caught:
            kept_ports(file, ["envoy"], fixed={"envoy": port})
    assert caught.value.hint is not None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kafka": "x"}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(content)
    assert kept_ports(file, ["kafka"], fixed={})["kafka"] > 0
