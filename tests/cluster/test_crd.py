"""What people may write is judged alike by Pydantic and by a real API server."""

import copy
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import SpecError
from tidemill.spec.load import loads
from tidemill.spec.model import ContinualModel
from tidemill.testing.control_plane import ControlPlane
from tidemill.testing.waiting import eventually

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "helm/tidemill/files/crd.yaml"
PATH = "/apis/tidemill.dev/v1alpha1/namespaces/default/continualmodels"
RESOURCES = [yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob("manifests/samples/*.yaml"))]

# What only Pydantic sees; it then stands in the resource's status, with the field's path.
UNSEEN = re.compile(
    r"cron|time zone|combine|window feature .* is there twice|feature .* is there twice|length .* is there twice"
    r"|spec\.model: topic|: topic .* is there twice|redact|a time with its zone|duration of at most"
)
# What only the API server refuses: text and lists longer than any should be, and moments that are not RFC 3339.
STRICTER = re.compile(r"Too long|Too many|may not be more than|should be at most|date-time|must be no more")

VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", "0s", "10m", "1.5h", "400d", "1d24h", "10 m", "1 per 30d", "0 per 1d", "ok", "Über", "a-b"),
    *(0, 1, -1, 2, 0.5, 1.5, 100, 101, 5_000, 1e9, 2**40),
    *([], [1], ["x"], ["x", "x"], [{}], {}, {"x": 1}),
    *(
        "float",
        "int",
        "string",
        "bool",
        "image",
        "class",
        "box",
        "regression",
        "classification",
        "priority",
        "quantile",
    ),
    *("count", "last", "mean", "f1", "error", "label.defect", "exposure_ms", "image", "station", "seen", "brightness"),
    *("registry.example/a:1", "inspection.model:Codec", "s3://pictures/", "2026-12-24T18:00:00+01:00", "0 3 * * *"),
    *({"atLeast": 1}, {"atLeast": 3}, {"atLeast": 0}, ["class", "value"], ["confidence"], ["station"], {"for": "0s"}),
)


class Server:
    """Creates resources, and keeps none (`dryRun`)."""

    def __init__(self, plane: ControlPlane) -> None:
        self._url = f"{plane.server}{PATH}?dryRun=All&fieldValidation=Strict"
        self._headers = {"authorization": f"Bearer {plane.admin_token}", "content-type": "application/json"}
        self._context = ssl.create_default_context(cafile=str(plane.ca))

    def create(self, resource: Any) -> tuple[dict[str, Any] | None, str]:
        """What would be kept, or why it is refused."""
        body = json.dumps(resource).encode()
        request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._context) as answer:  # noqa: S310
                kept: dict[str, Any] = json.loads(answer.read())
                return kept, ""
        except urllib.error.HTTPError as error:
            text = error.read().decode()  # plain while the kind is not served yet
            return None, str(json.loads(text)["message"]) if text.startswith("{") else text


@pytest.fixture(scope="module")
def server(plane: ControlPlane) -> Server:
    plane.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(DEFINITION))
    found = Server(plane)
    eventually(lambda: found.create(RESOURCES[0])[0], deadline_s=30)
    return found


def judged(resource: Any) -> tuple[ContinualModel | None, str]:
    """The resource, or its problems."""
    try:
        return loads(json.dumps(resource), "r"), ""
    except SpecError as error:
        return None, str(error)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


@st.composite
def resources(draw: st.DrawFn) -> dict[str, Any]:
    """A valid resource in which a few things were changed, taken away, repeated or added."""
    found: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(RESOURCES)))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from([one for one in places(found["spec"]) if one]))
        where = found["spec"]
        for key in path[:-1]:
            where = where[key]
        what = draw(st.sampled_from(["change", "change", "change", "remove", "repeat", "add"]))
        if what == "remove":
            del where[path[-1]]
        elif what == "repeat" and isinstance(where, list):
            where.append(copy.deepcopy(where[int(path[-1])]))
        elif what == "add" and isinstance(where, dict):
            where[draw(st.sampled_from(["zzz", "metric", "risk", "weight"]))] = draw(st.sampled_from(VALUES))
        else:
            # Mostly of the same type, so that what holds between fields is reached.
            alike = [one for one in VALUES if type(one) is type(where[path[-1]])]
            where[path[-1]] = copy.deepcopy(
                draw(st.sampled_from(draw(st.sampled_from([alike or VALUES] * 3 + [VALUES]))))
            )
    return found


@pytest.mark.slow
def test_samples_are_taken_and_mean_what_they_meant(server: Server) -> None:
    for resource in RESOURCES:
        kept, refused = server.create(resource)
        assert kept is not None, refused
        assert judged({**kept, "metadata": resource["metadata"]}) == judged(resource)


@pytest.mark.slow
def test_what_pydantic_refuses_is_refused_with_its_path_or_known_to_be_seen_by_it_alone(server: Server) -> None:
    counts = {"refused by both": 0, "taken by both": 0, "seen by Pydantic alone": 0, "stricter": 0}

    @settings(max_examples=800, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(resources())
    def check(resource: dict[str, Any]) -> None:
        valid, _ = judged(resource)
        kept, refused = server.create(resource)
        # The operator reads what is kept: with defaults, also where a null stood.
        seen, problems = judged({**kept, "metadata": resource["metadata"]}) if kept else (None, "")
        if kept is None and valid is None:
            counts["refused by both"] += 1
            assert "spec" in refused
        elif kept is None:
            counts["stricter"] += 1
            assert STRICTER.search(refused), f"only the API server refused it: {refused}"
        elif seen is None:
            counts["seen by Pydantic alone"] += 1
            assert UNSEEN.search(problems), f"the API server took it: {problems}"
        else:
            counts["taken by both"] += 1
            assert valid in (None, seen)

    check()
    print(counts)
    assert counts["refused by both"] > 300
    assert counts["taken by both"] > 50
    assert counts["seen by Pydantic alone"] < 60
