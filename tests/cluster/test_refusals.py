"""What the API server refuses, or cannot answer, in the words of our own errors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tidemill.cluster import Kind
from tidemill.cluster.kubernetes_api import KubernetesCluster, connect
from tidemill.core.errors import InvalidInput, Permanent, TidemillError, Unavailable, Unsupported
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing.control_plane import ControlPlane

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")


@contextmanager
def answering(folder: Path, status: int, body: bytes) -> Iterator[KubernetesCluster]:
    """A server that gives every call the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield at(folder, server.server_address[1])
        server.shutdown()
        thread.join(10)


def at(folder: Path, port: int) -> KubernetesCluster:
    """Whatever listens at a port of this machine, as a kubeconfig names it."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": f"http://{HOST}:{port}"}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(content))
    return connect(kubeconfig=str(file))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_asks_for_patience_is_unavailable(tmp_path: Path, status: int) -> None:
    said = json.dumps({"kind": "Status", "message": "too many requests"}).encode()
    with answering(tmp_path, status, said) as cluster, pytest.raises(Unavailable) as raised:
        cluster.get(CONFIG_MAP, "default", "a")
    assert raised.value.message == (
        "the API server cannot answer GET /api/v1/namespaces/default/configmaps/a now: too many requests"
    )


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidInput), (401, Unavailable), (403, Unsupported), (405, Unsupported), (422, InvalidInput)],
)
def test_each_refusal_has_its_own_error(tmp_path: Path, status: int, error: type[TidemillError]) -> None:
    with answering(tmp_path, status, b'{"message": "so it is"}') as cluster, pytest.raises(error, match="so it is"):
        cluster.get(CONFIG_MAP, "default", "a")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff"])
def test_an_error_page_that_is_no_status_still_has_words(tmp_path: Path, body: bytes) -> None:
    with answering(tmp_path, 503, body) as cluster, pytest.raises(Unavailable, match="cannot answer GET"):
        cluster.get(CONFIG_MAP, "default", "a")


def test_an_answer_that_is_no_json_is_no_answer(tmp_path: Path) -> None:
    with answering(tmp_path, 200, b"<html>") as cluster, pytest.raises(Unavailable, match="does not answer"):
        cluster.get(CONFIG_MAP, "default", "a")


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        at(tmp_path, free_ports(1)[0]).list(CONFIG_MAP, "default")


def test_a_kubeconfig_that_is_none_is_unavailable_and_says_what_helps(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        connect(kubeconfig=str(tmp_path / "none"))
    assert raised.value.hint is not None
    assert "KUBECONFIG" in raised.value.hint


def token(plane: ControlPlane, namespace: str) -> str:
    return plane.kubectl("create", "token", "default", "--namespace", namespace).strip()


@pytest.mark.slow
def test_what_is_forbidden_is_unsupported_and_names_verb_and_resource(plane: ControlPlane) -> None:
    here = plane.namespace()
    bearer = connect(kubeconfig=str(plane.kubeconfig_for(token(plane, here), here)))
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": here}}
    with pytest.raises(Unsupported, match='cannot get resource "configmaps"'):
        bearer.get(CONFIG_MAP, here, "a")
    with pytest.raises(Unsupported, match='cannot patch resource "configmaps"'):
        bearer.apply(manifest, CONFIG_MAP)
    assert not bearer.allows("get", CONFIG_MAP, here)
    plane.kubectl("create", "role", "reader", "--verb=get", "--resource=configmaps", "--namespace", here)
    plane.kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={here}:default", "--namespace", here
    )
    assert bearer.allows("get", CONFIG_MAP, here)
    assert not bearer.allows("get", CONFIG_MAP)
    assert not bearer.allows("list", CONFIG_MAP, here)
    assert bearer.get(CONFIG_MAP, here, "a") is None


@pytest.mark.slow
def test_a_token_that_is_not_known_any_more_is_unavailable_with_a_hint(plane: ControlPlane) -> None:
    here = plane.namespace()
    bound = ("--bound-object-kind=Secret", "--bound-object-name=held")
    plane.kubectl("create", "secret", "generic", "held", "--namespace", here)
    held = plane.kubectl("create", "token", "default", "--namespace", here, *bound).strip()
    bearer = connect(kubeconfig=str(plane.kubeconfig_for(held, here)))
    with pytest.raises(Unsupported):
        bearer.get(CONFIG_MAP, here, "a")
    plane.kubectl("delete", "secret", "held", "--namespace", here)
    stale = connect(kubeconfig=str(plane.kubeconfig_for("never-given", f"{here}-stale")))
    for asker in (bearer, stale):
        with pytest.raises(Unavailable) as raised:
            asker.get(CONFIG_MAP, here, "b")
        assert raised.value.hint == "has the token expired?"


@pytest.mark.slow
def test_an_object_that_breaks_its_schema_is_invalid_and_its_field_is_named(
    plane: ControlPlane, cluster: KubernetesCluster
) -> None:
    here = plane.namespace()
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": here}}
    with pytest.raises(InvalidInput, match=r"data\.a"):
        cluster.apply(manifest | {"data": {"a": 1}}, CONFIG_MAP)
    with pytest.raises(Permanent, match="dta"):
        cluster.apply(manifest | {"dta": {"a": "1"}}, CONFIG_MAP)
    with pytest.raises(InvalidInput, match="NO"):
        cluster.apply(manifest | {"metadata": {"name": "NO", "namespace": here}}, CONFIG_MAP)


@pytest.mark.slow
def test_a_client_outlives_a_restart_of_the_api_server(plane: ControlPlane, cluster: KubernetesCluster) -> None:
    here = plane.namespace()
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": here}}
    before = cluster.apply(manifest, CONFIG_MAP)
    with plane.without_api_server(), pytest.raises(Unavailable):
        cluster.get(CONFIG_MAP, here, "a")
    after = cluster.get(CONFIG_MAP, here, "a")
    assert after is not None
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
