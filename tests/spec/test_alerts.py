"""Routes and mute windows: valid, or refused with the reason."""

from typing import Any

import pytest
import yaml

from tidemill.control.store import resource_yaml
from tidemill.core.errors import SpecError
from tidemill.spec.alerts import KINDS, SEVERITIES
from tidemill.spec.load import loads
from tidemill.testing.loop import example_resource

ROUTE = {"name": "oncall", "urlEnv": "ONCALL_URL"}
WINDOW = {"start": "2026-12-24T18:00:00+01:00", "end": "2026-12-27T06:00:00+01:00", "reason": "the line stands"}


def loaded(alerts: dict[str, Any]) -> Any:
    content = yaml.safe_load(resource_yaml(example_resource()))
    content["spec"]["alerts"] = alerts
    return loads(yaml.safe_dump(content), "model.yaml").spec.alerts


def test_alerts_survive_being_stored() -> None:
    alerts = loaded({"routes": [ROUTE], "mute": [WINDOW], "groupFor": "1m", "repeatAfter": "1d"})
    stored = resource_yaml(example_resource(alerts={"routes": [ROUTE], "mute": [WINDOW], "groupFor": "1m"}))
    again = loads(stored, "stored").spec.alerts
    assert (again.routes, again.mute, again.group_for) == (alerts.routes, alerts.mute, alerts.group_for)


def test_without_routes_nobody_is_told() -> None:
    assert loaded({}).routes == ()


def test_every_kind_has_a_severity_that_there_is() -> None:
    assert set(KINDS.values()) <= set(SEVERITIES)


@pytest.mark.parametrize(
    ("alerts", "problem"),
    [
        ({"routes": [{"name": "oncall", "urlEnv": "json://user:pass@host"}]}, "expected an environment variable"),
        ({"routes": [{"name": "oncall", "url": "json://host"}]}, "unknown field; did you mean urlEnv?"),
        ({"routes": [ROUTE, ROUTE]}, "a route oncall is there twice"),
        ({"routes": [ROUTE | {"kinds": ["drifts"]}]}, "did you mean drift?"),
        ({"routes": [ROUTE | {"kinds": []}]}, "expected at least 1 items"),
        ({"routes": [ROUTE], "repeatAfter": "5s"}, "repeatAfter must be at least 1m"),
        ({"routes": [ROUTE], "groupFor": "2h"}, "groupFor must be at most 1h"),
        ({"mute": [WINDOW | {"start": "2026-12-24 18:00"}]}, "a time with its zone"),
        ({"mute": [WINDOW | {"end": "2026-12-24T18:00:00+01:00"}]}, "end must be later than start"),
        ({"mute": [WINDOW | {"every": "24h"}]}, "would never end when repeated each 24h"),
    ],
)
def test_what_is_wrong_is_said(alerts: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=r"spec\.alerts") as found:
        loaded(alerts)
    assert problem in str(found.value)


def test_a_url_where_the_variables_name_belongs_is_not_repeated_in_full() -> None:
    url = "json://user:averylongsecretpassword@host.example/path/with/a/token/aTokenThatNobodyMaySee"
    with pytest.raises(SpecError) as found:
        loaded({"routes": [{"name": "oncall", "urlEnv": url}]})
    assert "aTokenThatNobodyMaySee" not in str(found.value)
