"""Tell Feast what a model's features are: `python -m tidemill.features.apply --resource FILE`.

A process of its own, because importing Feast takes seconds and hundreds of MB that no role should carry.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidemill.core.errors import TidemillError, Unavailable
from tidemill.core.settings import Settings, load_settings
from tidemill.core.telemetry import get_logger, setup_logging
from tidemill.features.project import store_config
from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel

__all__ = ["apply", "feature_store", "main"]


def feature_store(resource: ContinualModel, settings: Settings) -> Any:
    """The model's `feast.FeatureStore` in this installation. Imports Feast."""
    from feast import FeatureStore, RepoConfig

    return FeatureStore(config=RepoConfig(repo_path=Path.cwd(), **store_config(resource.id, settings)))


def apply(resource: ContinualModel, settings: Settings) -> None:
    """Register the model's entity, view and service. What else the project has stays; doing it again changes nothing.

    Nothing is done to the user's own repository, where the resource names a FeatureService of one. Raises
    `Unavailable` where the registry does not answer.
    """
    if resource.spec.features.service is not None and not _has_values(resource):
        return  # all features are the service's
    from sqlalchemy.exc import SQLAlchemyError

    from tidemill.features.definitions import definitions

    settings.state.mkdir(parents=True, exist_ok=True)
    try:
        feature_store(resource, settings).apply(definitions(resource, settings.lake_uri), partial=True)
    except SQLAlchemyError as error:
        raise Unavailable(f"Feast's registry does not take {resource.id}: {error}") from error


def _has_values(resource: ContinualModel) -> bool:
    features = resource.spec.features
    return bool(features.image or features.label_windows) or any(
        field.type != "image" for field in resource.spec.events.fields
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The process: 0 when the registry has the model, else the error's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tidemill.features.apply", description=main.__doc__)
    parser.add_argument("--resource", type=Path, required=True, help="the ContinualModel's YAML file")
    arguments = parser.parse_args(argv)
    # Feast imports torch where there is one and does without where there is not: 470 MB and seconds for nothing here.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    settings, _ = load_settings()
    setup_logging(settings, "feast")
    log = get_logger(__name__)
    try:
        resource = load(arguments.resource)
        apply(resource, settings)
    except TidemillError as error:
        log.error(error.message, hint=error.hint)
        return error.exit_code
    log.info("Feast knows the features", model=resource.id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
