"""The real Kafka, Redis and Envoy of one machine, started once for all tests by the code that `tidemill up` uses."""

import logging
import os
import secrets
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
import structlog

from tidemill.core.clock import SystemClock
from tidemill.stack import envoy as envoy_process
from tidemill.stack import kafka as kafka_process
from tidemill.stack import redis as redis_process
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing.process import running

# How long an example takes on a busy machine says nothing of the code.
hypothesis.settings.register_profile("tidemill", deadline=None)
hypothesis.settings.load_profile("tidemill")


class EnvoyProxy(NamedTuple):
    """A running Envoy: where it takes requests, its admin interface, and the folder of routes and clusters."""

    endpoint: str
    admin: str
    folder: Path


@pytest.fixture(scope="session", autouse=True)
def standard_platform() -> Iterator[None]:
    """The folder `platform/` must not have become the module `platform`, neither before the tests nor by them."""

    def is_standard() -> bool:
        file = sys.modules["platform"].__file__ if "platform" in sys.modules else None
        return file is None or Path(file).parent == Path(sysconfig.get_path("stdlib"))

    assert is_standard()
    yield
    assert is_standard()


@pytest.fixture(autouse=True)
def no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test says which settings it wants; those of the person who runs it are theirs."""
    for name in os.environ.keys() - {"TIDEMILL_DATA"}:
        if name.startswith("TIDEMILL_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """A test that sets up logs sets them up on its own stderr, which is closed after it."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a broker."""
    folder = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    wanted = kafka_process.prepare(folder, port=port, controller_port=controller_port)
    with running(wanted, folder):
        kafka_process.wait_until_ready(f"{HOST}:{port}", clock=SystemClock(), deadline_s=60)
        yield f"{HOST}:{port}"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis server; tests share it, so their keys carry a name of their own (`topic_prefix`)."""
    folder = tmp_path_factory.mktemp("redis")
    (port,) = free_ports(1)
    with running(redis_process.prepare(folder, port=port), folder):
        yield f"redis://{HOST}:{port}/0"


@pytest.fixture(scope="session")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyProxy]:
    """A proxy without routes: it answers 503 until a test replaces the files in its folder."""
    folder = tmp_path_factory.mktemp("envoy")
    port, admin_port = free_ports(2)
    with running(envoy_process.prepare(folder, port=port, admin_port=admin_port), folder):
        yield EnvoyProxy(f"http://{HOST}:{port}", f"http://{HOST}:{admin_port}", folder)


@pytest.fixture
def topic_prefix() -> str:
    """A model name that no other test has, to prefix topics, keys and folders."""
    return f"t{secrets.token_hex(4)}"
