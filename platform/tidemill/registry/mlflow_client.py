"""MLflow's client, imported as we want it: no telemetry, quiet, and its SQL stores with it.

Importing this module takes seconds. The stores would otherwise be imported by the first call.
"""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# One that is away holds up whoever asks: two minutes a call, again and again, is the client's own patience.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

from mlflow.store.model_registry import sqlalchemy_store as _versions
from mlflow.store.tracking import sqlalchemy_store as _runs
from mlflow.tracking import MlflowClient

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)

__all__ = ["STORES", "MlflowClient"]

STORES = (_versions.SqlAlchemyStore, _runs.SqlAlchemyStore)
"""What the client works on, given a SQL tracking URI."""
