"""What the operator may do is what it does: no kind too few, none too many."""

import yaml
from helm.generate.__main__ import CHART

from tidemill.cluster import Kind
from tidemill.control.cluster_events import EVENT
from tidemill.control.cluster_kinds import KAFKA_TOPIC
from tidemill.control.operator import WATCHED
from tidemill.rollout.kserve import REVISION

RULES = yaml.safe_load((CHART / "files/operator-rules.yaml").read_text())
MODEL = "tidemill.dev/continualmodels"


def named(kind: Kind) -> str:
    return f"{kind.api_version.rpartition('/')[0]}/{kind.plural}"


def rights() -> dict[str, set[str]]:
    return {
        f"{group}/{resource}": set(rule["verbs"])
        for rule in RULES
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_what_is_watched_may_be_read_stated_and_taken_back() -> None:
    # An object that is stated for the first time is created: the API server asks for both verbs.
    # What is listed and watched need not be got.
    whole = {"list", "watch", "create", "patch", "delete"}
    people_and_knative = {MODEL: {"create", "delete"}, named(REVISION): {"create", "patch"}}  # do these themselves
    people_and_knative[named(KAFKA_TOPIC)] = {"delete"}  # a topic is data: it goes by a person's hand
    for kind in WATCHED:
        assert rights()[named(kind)] == whole - people_and_knative.get(named(kind), set()), kind


def test_nothing_else_may_be_touched() -> None:
    others = {f"{MODEL}/status": {"patch"}, f"{MODEL}/finalizers": {"update"}}
    others |= {named(EVENT): {"create", "patch"}}
    watched = {named(kind) for kind in WATCHED}
    assert {name: verbs for name, verbs in rights().items() if name not in watched} == others
