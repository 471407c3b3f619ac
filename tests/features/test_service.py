"""A user's own Feast repository, in processes of their own. One repository for all: applying it takes seconds."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tidemill.control.store import resource_yaml
from tidemill.testing.feast import UserRepository
from tidemill.testing.loop import example_resource

RESOURCE: dict[str, Any] = {
    "events": {
        "entity": {"name": "station"},
        "id": "event_id",
        "timestamp": "captured_at",
        "fields": [{"name": "image", "type": "image"}, {"name": "exposure_ms", "type": "float"}],
    },
    "features": {"image": ["brightness"], "service": "inspection"},
}

# Opens the service for each resource given, and tells what it says.
ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
from datetime import timedelta
from pathlib import Path
import polars as pl
from tidemill.core.errors import TidemillError
from tidemill.features.service import open_service
from tidemill.testing.feast import MEASURED
from tidemill.testing.loop import example_resource

folder, resource, refused = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
service = open_service(example_resource(**resource), folder)
hour = timedelta(hours=1)
rows = [{"station": name, "exposure_ms": 4.0} for name in ("B", "A", "nobody", "C", "A")]
now = MEASURED + hour
online = [{"values": row.values, "statuses": row.statuses} for row in service.online(rows, now)]
asked = pl.DataFrame(rows).with_columns(at=pl.lit(now))
earlier = pl.DataFrame(rows[1:2] * 2).with_columns(at=pl.lit(MEASURED - hour))
told = []
for one in refused:
    try:
        open_service(example_resource(**one), folder)
        told.append("")
    except TidemillError as error:
        told.append(f"{type(error).__name__}: {error.message}")
loaded = {name.split(".")[0] for name in sys.modules if sys.modules[name] is not None}
print(json.dumps({
    "names": service.names, "inputs": service.inputs, "online": online, "refused": told,
    "historical": service.historical(asked, "at").to_dicts(),
    "earlier": service.historical(earlier, "at").to_dicts(), "torch": "torch" in loaded,
}))
"""

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"features": {"service": "other"}}, "NotFound: .* has no FeatureService other; it has inspection"),
    (
        {"events": RESOURCE["events"] | {"entity": {"name": "line"}}},
        "InvalidInput: feature view wear is joined by station, and no event has that; keys can be line",
    ),
    (
        {"events": RESOURCE["events"] | {"entity": {"name": "station", "type": "int"}}},
        "InvalidInput: .* joined by station: Feast has it as STRING, events as int",
    ),
    (
        {"events": RESOURCE["events"] | {"fields": [{"name": "image", "type": "image"}]}},
        "InvalidInput: exposure_ms, a request-time input of inspection, is no field of an event",
    ),
    (
        {
            "events": RESOURCE["events"]
            | {"fields": [*RESOURCE["events"]["fields"], {"name": "maker", "type": "string"}]}
        },
        "InvalidInput: FeatureService inspection has a feature maker, which is the name of an event field, too",
    ),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> UserRepository:
    made = UserRepository(tmp_path_factory.mktemp("factory") / "feast")
    made.write()
    made.apply()
    return made


@pytest.fixture(scope="module")
def told(repository: UserRepository) -> dict[str, Any]:
    refused = json.dumps([RESOURCE | one for one, _ in REFUSED])
    printed = repository.python("-c", ASK, str(repository.folder), json.dumps(RESOURCE), refused)
    return dict(json.loads(printed.splitlines()[-1]))


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXPECTED = [
    {"hours": None, "maker": None, "exposure_s": 0.004, "exposure_per_year": 4 / 16},
    {"hours": 1.5, "maker": "x", "exposure_s": 0.004, "exposure_per_year": 4 / 26},
    {"hours": None, "maker": None, "exposure_s": 0.004, "exposure_per_year": None},
    {"hours": None, "maker": "z", "exposure_s": 0.004, "exposure_per_year": 4 / 6},
    {"hours": 1.5, "maker": "x", "exposure_s": 0.004, "exposure_per_year": 4 / 26},
]


def test_the_service_says_what_it_gives_and_what_it_needs(told: dict[str, Any]) -> None:
    assert told["names"] == ["hours", "maker", "exposure_s", "exposure_per_year"]
    assert told["inputs"] == ["station", "exposure_ms"]


def test_online_rows_come_in_order_with_feasts_statuses(told: dict[str, Any]) -> None:
    assert [row["values"] for row in told["online"]] == EXPECTED
    statuses = [[row["statuses"][name] for name in ("hours", "maker")] for row in told["online"]]
    assert statuses == [
        ["OUTSIDE_MAX_AGE", "NULL_VALUE"],
        ["PRESENT", "PRESENT"],
        ["NOT_FOUND", "NOT_FOUND"],
        ["NOT_FOUND", "PRESENT"],
        ["PRESENT", "PRESENT"],
    ]
    assert told["online"][2]["statuses"]["exposure_per_year"] == "NULL_VALUE"


def test_training_sees_what_serving_gave_and_loses_no_row(told: dict[str, Any]) -> None:
    assert told["historical"] == [row["values"] for row in told["online"]]


def test_history_is_as_of_the_rows_time_and_repeats_stay(told: dict[str, Any]) -> None:
    assert [row["hours"] for row in told["earlier"]] == [0.5, 0.5]
    assert math.isclose(told["earlier"][0]["exposure_per_year"], 4 / 26)


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=["name", "key", "type", "input", "collision"])
def test_a_service_that_does_not_fit_is_refused_in_words(told: dict[str, Any], number: int) -> None:
    assert re.match(REFUSED[number][1], told["refused"][number]), told["refused"][number]


def test_feast_is_loaded_without_torch(told: dict[str, Any]) -> None:
    assert not told["torch"]


def test_validate_says_what_is_wrong_with_the_service(repository: UserRepository, tmp_path: Path) -> None:
    (tmp_path / "inspection").mkdir()
    (tmp_path / "inspection" / "model.py").touch()
    file = tmp_path / "model.yaml"
    file.write_text(resource_yaml(example_resource(**RESOURCE)))
    environ = {"TIDEMILL_FEAST_REPO": str(repository.folder), "TIDEMILL_STATE": str(tmp_path / "state")}
    assert "is valid" in repository.python("-m", "tidemill.cli", "validate", str(file), environ=environ)
    file.write_text(resource_yaml(example_resource(**RESOURCE | {"features": {"service": "other"}})))
    with pytest.raises(AssertionError, match="has no FeatureService other"):
        repository.python("-m", "tidemill.cli", "validate", str(file), environ=environ)
    environ["TIDEMILL_FEAST_REPO"] = ""
    with pytest.raises(AssertionError, match=r"no feature_store\.yaml in"):
        repository.python("-m", "tidemill.cli", "validate", str(file), environ=environ)


def test_what_ingest_applies_leaves_the_users_repository_alone(repository: UserRepository, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in repository.folder.rglob("*") if path.is_file()}
    only_pictures = {"events": RESOURCE["events"] | {"fields": [{"name": "image", "type": "image"}]}}
    file = tmp_path / "model.yaml"
    file.write_text(resource_yaml(example_resource(**only_pictures, features={"service": "inspection"}, triggers={})))
    environ = {"TIDEMILL_FEAST_REPO": str(repository.folder), "TIDEMILL_STATE": str(tmp_path / "state")}
    repository.python("-m", "tidemill.features.apply", "--resource", str(file), environ=environ)
    assert {path: path.read_bytes() for path in repository.folder.rglob("*") if path.is_file()} == before
