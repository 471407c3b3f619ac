"""KServe's server classes, imported where they are needed and without handing it our command line."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from tidemill.core.errors import Unsupported

__all__ = ["kserve_parts"]


def kserve_parts() -> Any:
    """A namespace of KServe's classes: ModelServer, RESTServer, Model, and its FastAPI `app`.

    Takes a second or more (it brings the Kubernetes client and pandas). Raises `Unsupported` where KServe is not
    installed.
    """
    with _no_arguments():
        try:
            server = importlib.import_module("kserve.model_server")
        except ModuleNotFoundError as error:
            raise Unsupported(f"{error.name} is not installed", hint="pip install 'tidemill[serving]'") from error
        rest = importlib.import_module("kserve.protocol.rest.server")
        model = importlib.import_module("kserve.model")
        errors = importlib.import_module("kserve.errors")
    return SimpleNamespace(
        app=server.app,
        ModelServer=server.ModelServer,
        RESTServer=rest.RESTServer,
        Model=model.Model,
        ModelNotFound=errors.ModelNotFound,
    )


@contextmanager
def _no_arguments() -> Iterator[None]:
    """KServe parses `sys.argv` when it is imported."""
    given, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = given
