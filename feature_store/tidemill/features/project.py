"""A model's Feast project: its name and how its store is reached. Imports no Feast."""

from tidemill.core.settings import Settings

__all__ = ["project_name", "store_config"]


def project_name(model_id: str) -> str:
    """The Feast-safe form of a model's id, a different one for each: Feast takes letters, digits and `_` only.

    Ids are lower case, so a capital marks what stood there: `default.phone-inspection` is
    `default_X_phone_inspection`.
    """
    return model_id.replace("-", "_").replace(".", "_X_")


def store_config(model_id: str, settings: Settings) -> dict[str, object]:
    """What feature_store.yaml says, for one model of this installation; raises `Unavailable` without a Redis."""
    return {
        "project": project_name(model_id),
        "provider": "local",
        "registry": {"registry_type": "sql", "path": settings.feast_registry_uri, "cache_ttl_seconds": 60},
        "online_store": {
            "type": "tidemill.features.feast_online.TidemillOnlineStore",
            "redis_url": settings.require_redis(),
        },
        "offline_store": {"type": "tidemill.features.feast_offline.TidemillOfflineStore"},
        "entity_key_serialization_version": 3,
    }
