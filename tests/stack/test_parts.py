"""Kafka, Redis and Envoy as their own clients see them."""

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from tests.conftest import EnvoyProxy

from tidemill.core.files import write_atomically
from tidemill.stack import redis as redis_server
from tidemill.stack.envoy import ROUTES_FILE, no_routes, resources
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing import eventually
from tidemill.testing.process import running


def get(url: str) -> tuple[int, str, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type", ""), answer.read()
    finally:
        connection.close()


@pytest.mark.kafka
def test_a_topic_is_made_only_when_asked_for(kafka: str, topic_prefix: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    try:
        admin.create_topics(
            [NewTopic(f"{topic_prefix}.made", 2, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})]
        )
        assert f"{topic_prefix}.made" in admin.list_topics()
        assert f"{topic_prefix}.other" not in admin.list_topics()
    finally:
        admin.close()


@pytest.mark.redis
def test_redis_refuses_to_evict_and_keeps_nothing_on_disk(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    try:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    finally:
        client.close()


@pytest.mark.redis
def test_redis_is_reached_by_a_socket_in_its_folder_that_is_its_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    (port,) = free_ports(1)
    with running(redis_server.prepare(folder, port=port), folder):
        url = redis_server.url(folder, port=port)
        redis_server.check(url)
        assert url.startswith("unix://")
        assert (folder / "redis.sock").stat().st_mode & 0o777 == 0o600
        redis_server.check(f"redis://{HOST}:{port}/0")


def test_redis_is_reached_by_its_port_where_the_folders_path_is_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    assert redis_server.url(folder, port=7) == f"redis://{HOST}:7/0"
    assert "--unixsocket" not in redis_server.prepare(folder, port=7).argv


@pytest.fixture
def bare_envoy(envoy: EnvoyProxy) -> EnvoyProxy:
    """The session's Envoy as `tidemill up` starts it, whatever routes other tests gave it."""
    write_atomically(Path(envoy.folder) / ROUTES_FILE, resources(no_routes()))
    eventually(lambda: get(envoy.endpoint)[0] == 503)
    return envoy


@pytest.mark.envoy
def test_envoy_says_that_no_model_serves_until_it_has_routes(bare_envoy: EnvoyProxy) -> None:
    envoy = bare_envoy
    status, kind, body = get(envoy.endpoint + "/v1/models/phone:predict")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body)["error"] == "no model serves here yet"


@pytest.mark.envoy
def test_envoy_takes_new_routes_from_a_renamed_file(bare_envoy: EnvoyProxy) -> None:
    envoy, routes = bare_envoy, no_routes()
    routes["virtual_hosts"][0]["routes"][0]["direct_response"] = {"status": 200, "body": {"inline_string": "{}"}}
    file = Path(envoy.folder) / ROUTES_FILE
    before = file.read_text()
    try:
        write_atomically(file, resources(routes))
        eventually(lambda: get(envoy.endpoint)[0] == 200, deadline_s=5)
    finally:
        write_atomically(file, before)
        eventually(lambda: get(envoy.endpoint)[0] == 503, deadline_s=5)
