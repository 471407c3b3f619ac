"""Whom the route sends where: by chance, by a user's bucket, and in copy."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidemill.rollout.http_route import (
    Buckets,
    Gateway,
    Mirror,
    Split,
    edit_of,
    http_route,
    is_taken_on,
    mirror_of,
    services_of,
    weights_of,
)
from tidemill.spec.paths import MIRROR_HEADER
from tidemill.testing.kserve import told
from tidemill.testing.loop import example_resource

GATEWAY = Gateway("gateways", "public", ("models.example.com",))
TOLD = {"name": MIRROR_HEADER, "value": "v2"}
SALTS = st.text(st.characters(codec="ascii"), max_size=20)


def route(split: Split) -> dict[str, Any]:
    made = http_route(example_resource(), GATEWAY, split, wanted="v1 95 %, v2 5 %")
    made["metadata"]["generation"] = 1
    return made


def served_by(made: dict[str, Any], bucket: int) -> str:
    """The service of a request with this bucket, where the route says so."""
    for rule in made["spec"]["rules"]:
        headers = rule["matches"][0].get("headers")
        if headers and re.fullmatch(headers[0]["value"], str(bucket)):
            return str(rule["backendRefs"][0]["name"])
    return "by chance"


def buckets_of(share: int, salt: str = "s") -> set[int]:
    made = route(Split({"a": 100 - share, "b": share}, Buckets("x-bucket", salt, "b")))
    return {bucket for bucket in range(100) if served_by(made, bucket) == "b"}


@given(st.integers(1, 99), SALTS)
def test_a_share_is_so_many_buckets(share: int, salt: str) -> None:
    assert len(buckets_of(share, salt)) == share


@given(st.integers(1, 98), st.integers(1, 98), SALTS)
def test_raising_a_share_moves_nobody_back(first: int, more: int, salt: str) -> None:
    assert buckets_of(first, salt) <= buckets_of(min(first + more, 99), salt)


def test_another_rollout_begins_with_other_users() -> None:
    assert buckets_of(25, "one") != buckets_of(25, "two")


def test_a_request_without_a_bucket_goes_by_chance() -> None:
    made = route(Split({"a": 75, "b": 25}, Buckets("x-bucket", "s", "b")))
    assert "headers" not in made["spec"]["rules"][-1]["matches"][0]
    assert weights_of(made) == {"a": 75, "b": 25}
    assert {served_by(made, bucket) for bucket in range(100)} == {"a", "b"}


def test_where_one_version_has_everything_no_bucket_is_asked_for() -> None:
    for share in (0, 100):
        assert len(route(Split({"a": 100 - share, "b": share}, Buckets("x-bucket", "s", "b")))["spec"]["rules"]) == 1


def test_a_copy_counts_for_no_share_and_keeps_its_service_in_use() -> None:
    made = route(Split({"a": 100}, mirror=Mirror("v2", "b")))
    assert (weights_of(made), mirror_of(made), services_of(made)) == ({"a": 100}, "b", {"a", "b"})


def test_a_copy_is_told_by_a_header_that_no_client_can_send() -> None:
    for mirror, change in ((None, {"remove": [MIRROR_HEADER]}), (Mirror("v2", "b"), {"set": [TOLD]})):
        made = route(Split({"a": 100}, mirror=mirror))
        assert made["spec"]["rules"][0]["filters"][0]["requestHeaderModifier"] == change


def test_the_route_is_of_this_model_alone_in_both_protocols() -> None:
    matches = route(Split({"a": 100}))["spec"]["rules"][0]["matches"]
    assert [(one["path"]["type"], one["path"]["value"]) for one in matches] == [
        ("Exact", "/v1/models/phone-inspection"),
        ("Exact", "/v1/models/phone-inspection:predict"),
        ("PathPrefix", "/v2/models/phone-inspection"),
    ]
    assert route(Split({}))["spec"]["hostnames"] == ["models.example.com"]


def test_a_route_is_taken_on_when_its_own_gateway_says_so_of_this_generation() -> None:
    made = route(Split({"a": 100}))

    def says(name: str, generation: int, *, resolved: bool = True) -> bool:
        conditions = [told("Accepted", True, generation), told("ResolvedRefs", resolved, generation)]
        parent = {"parentRef": {"namespace": "gateways", "name": name}, "conditions": conditions}
        return is_taken_on(made | {"status": {"parents": [parent]}}, GATEWAY)

    assert says("public", 1)
    assert not says("other", 1)
    assert not says("public", 0)
    assert not says("public", 1, resolved=False)
    assert not is_taken_on(made, GATEWAY)


def test_any_part_that_was_stated_and_is_not_so_any_more_is_an_edit_with_its_author() -> None:
    assert edit_of(route(Split({"a": 100}))) is None
    made = route(Split({"a": 75, "b": 25}))
    made["spec"]["rules"][0]["backendRefs"][0]["weight"] = 25
    made["spec"]["parentRefs"].append({"name": "another"})
    made["metadata"]["managedFields"] = [
        {"manager": "tidemill", "fieldsV1": {"f:spec": {}}},
        {"manager": "gateway", "fieldsV1": {"f:status": {}}, "subresource": "status"},
        {"manager": "kubectl-edit", "fieldsV1": {"f:spec": {}}},
    ]
    said = (
        "HTTPRoute phone-inspection-tidemill was edited by kubectl-edit (parentRefs, rules); it now says a 50 %, b 50 %"
    )
    assert edit_of(made) == said
