"""Which driver is chosen, and the reason that is told."""

import pytest

from tidemill.core.errors import Unsupported
from tidemill.rollout.auto import KNATIVE_SERVICE, Installed, choose, installed
from tidemill.rollout.http_route import HTTP_ROUTE, Gateway
from tidemill.rollout.kserve import INFERENCE_SERVICE
from tidemill.testing.cluster import InMemoryCluster

ALL = Installed(kserve=True, routes=True, gateway="gateways/public", knative=True)


def test_routes_come_first_as_they_work_with_any_kserve() -> None:
    choice = choose("auto", ALL)
    assert (choice.driver, "gateways/public takes the requests" in choice.reason) == ("gateway", True)


def test_knative_is_taken_where_no_gateway_is_known_and_the_reason_says_what_lacks() -> None:
    choice = choose("auto", ALL._replace(gateway=None))
    assert choice.driver == "knative"
    assert "the setting gateway" in choice.reason


def test_where_nothing_works_each_driver_says_what_it_lacks() -> None:
    with pytest.raises(Unsupported) as caught:
        choose("auto", Installed(kserve=False, routes=False, gateway=None, knative=False))
    for part in ("gateway needs KServe", "HTTPRoute", "the setting gateway", "knative needs KServe", "Knative Serving"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("asked", "found", "why"),
    [
        ("gateway", ALL._replace(routes=False), "needs Gateway API"),
        ("knative", ALL._replace(knative=False), "needs Knative Serving"),
        ("local", ALL, "is for one machine"),
    ],
)
def test_a_driver_that_cannot_work_is_refused(asked: str, found: Installed, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        choose(asked, found)  # type: ignore[arg-type]


def test_on_one_machine_there_is_one_driver_and_another_is_passed_over_in_words() -> None:
    assert choose("auto", None).driver == "local"
    choice = choose("gateway", None)
    assert choice.driver == "local"
    assert "gateway is for a cluster" in choice.reason


def test_what_is_installed_is_what_the_api_server_serves() -> None:
    assert installed(InMemoryCluster(), "gateways/public") == ALL
    bare = InMemoryCluster(unknown=[INFERENCE_SERVICE, HTTP_ROUTE, KNATIVE_SERVICE])
    assert installed(bare, None) == Installed(kserve=False, routes=False, gateway=None, knative=False)


def test_a_gateway_is_named_with_its_namespace() -> None:
    assert Gateway.parse("gateways/public") == Gateway("gateways", "public")
    with pytest.raises(Exception, match="is no gateway"):
        Gateway.parse("public")
