"""Where `rollout.shadow` is refused, and with which way out."""

from typing import Any

import pytest
from pydantic import ValidationError

from tidemill.testing.loop import example_resource

LABELS = {"fields": [{"name": "defect", "type": "class"}], "control": 0.9}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"labels": LABELS}, "rollout.shadow needs labels.control: 1.0, not 0.9"),
        ({"serving": {"driver": "knative"}}, "sends no copies: use serving.driver: gateway, or leave shadow out"),
        ({"rollout": {"shadow": True, "cohorts": {"key": "x-user"}}}, "shadow: not with cohorts.key x-user"),
    ],
)
def test_it_is_refused_where_copies_cannot_be_made_or_judged(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        example_resource(**{"rollout": {"shadow": True}} | spec)


def test_it_is_off_unless_it_is_asked_for() -> None:
    assert not example_resource().spec.rollout.shadow
    assert example_resource(rollout={"shadow": True}).spec.rollout.shadow
