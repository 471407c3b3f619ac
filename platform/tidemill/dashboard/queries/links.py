"""Where else something of a model can be looked at: its runs in Kubeflow Pipelines, its versions in MLflow."""

from urllib.parse import quote, urlsplit

from tidemill.core.settings import Settings

__all__ = ["Link", "links_of", "web_address"]

Link = tuple[str, str]
"""Words and a URL."""


def links_of(settings: Settings, model: str) -> tuple[Link, ...]:
    """What there is: `kfp_ui` and `mlflow_ui`, else the addresses that are asked themselves, where a browser can."""
    kfp, mlflow = web_address(settings.kfp_ui or settings.kfp), web_address(settings.mlflow_ui or settings.mlflow)
    found = [("Runs in Kubeflow Pipelines", f"{kfp}/#/runs")] if kfp else []
    if mlflow:
        found.append(("Versions in MLflow", f"{mlflow}/#/models/{quote(model, safe='')}"))
    return tuple(found)


def web_address(address: str | None) -> str | None:
    """The address without a slash at its end; None of what a browser should not open (SQLite, a script)."""
    if not address:
        return None
    try:
        parts = urlsplit(address)
        is_web = parts.scheme in {"http", "https"} and bool(parts.hostname) and address.isprintable()
    except ValueError:  # such as a bracket without its other
        return None
    # Whoever looks has no need of a password that the dashboard was given.
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}" if is_web else None
