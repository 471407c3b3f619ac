"""KServe's own app with one model: what it says of itself put right, its logs kept down, predict requests ours."""

import logging
import warnings
from typing import Any

from prometheus_client import REGISTRY as KSERVE_REGISTRY

from tidemill.core.telemetry import REGISTRY
from tidemill.serving.front import Front
from tidemill.serving.intake import Intake
from tidemill.serving.model import Requests, make_model
from tidemill.serving.openapi import describe
from tidemill.serving.v2 import EXTENSION

__all__ = ["application"]

MAX_BODY_BYTES = 32 << 20
"""A request: a few pictures of the largest size, or many of the usual one."""
MAX_HELD_BYTES = 8 * MAX_BODY_BYTES
"""Of all requests that are read or wait for the model."""
BODY_S = 30.0
"""Longest time for a body to come: the largest at 9 Mbit/s."""


def application(parts: Any, requests: Requests) -> Front:
    """The ASGI app.

    Args:
        parts: KServe's classes (`kserve_parts`).
        requests: who answers predict requests.
    """
    _quiet()
    model = make_model(parts, requests)
    server = parts.ModelServer(enable_grpc=False, workers=1, enable_latency_logging=False)
    server.register_model(model)
    dataplane = server.dataplane

    async def metadata(name: str) -> dict[str, Any]:
        return dataplane.get_model_from_registry(name).metadata()  # type: ignore[no-any-return]

    dataplane.model_metadata = metadata
    dataplane.metadata = lambda: {"name": "tidemill", "version": requests.version, "extensions": [EXTENSION]}
    rest = parts.RESTServer("kserve.model_server:app", dataplane, server.model_repository_extension, 8080)
    rest.create_application()
    app = parts.app
    _answer_in_one_form(app)
    document = describe(app.openapi(), requests)
    app.openapi = lambda: document
    if _OurMetrics not in {type(one) for one in KSERVE_REGISTRY._collector_to_names}:
        KSERVE_REGISTRY.register(_OurMetrics())
    return Front(app, model, requests, Intake(limit=MAX_BODY_BYTES, total=MAX_HELD_BYTES, patience_s=BODY_S))


def _quiet() -> None:
    for name in ("kserve", "kserve.trace"):
        # It logs a traceback for each request that it refuses, and several lines for each that it answers.
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger(name).propagate = False
    # FastAPI advises KServe on how to answer, once for each process.
    warnings.filterwarnings("ignore", module="fastapi")


def _answer_in_one_form(app: Any) -> None:
    """What FastAPI itself refuses (no such path, another method) is answered as every other bad input."""
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    async def refuse(_: Any, error: Any) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, status_code=error.status_code, headers=error.headers)

    app.add_exception_handler(HTTPException, refuse)


class _OurMetrics:
    """Shows our registry through KServe's, which is the one that its /metrics tells."""

    def collect(self) -> Any:
        return REGISTRY.collect()
