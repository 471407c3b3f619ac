"""The key of a request that rollouts assign: taken from the header that the resource names."""

from typing import Any, cast

from tidemill.serving.predictor import Predictor
from tidemill.testing.loop import example_resource


def predictor(key: str) -> Predictor:
    parts = cast("Any", None)
    resource = example_resource(rollout={"cohorts": {"key": key}})
    return Predictor(resource, version="v1", model=parts, features=parts, log=parts)


def test_the_header_that_the_resource_names_is_the_key() -> None:
    assert predictor("x-user").cohort_of({"x-user": "ada", "x-request-id": "r-1"}) == "ada"


def test_a_request_without_the_header_has_no_key() -> None:
    assert predictor("x-user").cohort_of({}) is None
    assert predictor("x-user").cohort_of({"x-user": ""}) is None
    assert predictor("x-user").cohort_of(None) is None


def test_where_requests_are_assigned_no_header_is_a_key() -> None:
    assert predictor("request").cohort_of({"request": "ada"}) is None
