"""Links to other sites: such as a browser may follow, and no others."""

import pytest

from tidemill.core.settings import Settings
from tidemill.dashboard.queries.links import links_of, web_address


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("https://mlflow.example/", "https://mlflow.example"),
        ("http://10.0.0.7:5000/base/", "http://10.0.0.7:5000/base"),
        ("http://user:secret@mlflow.example", "http://mlflow.example"),
        ("javascript:alert(1)", None),
        ("JAVASCRIPT://x/%0aalert(1)", None),
        ("sqlite:////state/mlflow.db", None),
        ("data:text/html,x", None),
        ("http://[::1", None),
        ("http://", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_is_a_web_address_or_none(address: str | None, found: str | None) -> None:
    assert web_address(address) == found


def test_there_is_a_link_to_what_is_set() -> None:
    assert links_of(Settings(), "default.x") == ()
    settings = Settings(kfp="http://kfp:8888", kfp_ui="https://kfp.example", mlflow="http://mlflow:5000")
    assert links_of(settings, "default.<x>/../y") == (
        ("Runs in Kubeflow Pipelines", "https://kfp.example/#/runs"),
        ("Versions in MLflow", "http://mlflow:5000/#/models/default.%3Cx%3E%2F..%2Fy"),
    )
