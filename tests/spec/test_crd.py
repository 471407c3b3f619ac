"""The CustomResourceDefinition says what the Pydantic classes say."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.spec import crd, model, part
from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel
from tidemill.spec.rules import KEYS, RULES, SETS

ROOT = Path(__file__).parents[2]
DEFINITION = crd.definition()
SCHEMA = DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
RESOURCES = sorted([*ROOT.glob("examples/*/m*.yaml"), *ROOT.glob("manifests/samples/*.yaml")])


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    """The value as the API server keeps it: nulls dropped where they say nothing, defaults put in."""
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    found = {
        name: inner
        for name, inner in value.items()
        if inner is not None or schema["properties"].get(name, {}).get("nullable")
    }
    for name, inner in schema["properties"].items():
        if name not in found and "default" in inner:
            found[name] = copy.deepcopy(inner["default"])
    return {name: defaulted(schema["properties"].get(name, {}), inner) for name, inner in found.items()}


def classes(base: type[part.Part] = part.Part) -> Iterator[type[part.Part]]:
    for found in base.__subclasses__():
        yield found
        yield from classes(found)


PARTS = {found.__name__: found for found in classes()}


def test_the_chart_has_the_definition_that_the_classes_make() -> None:
    assert (ROOT / "helm/tidemill/files/crd.yaml").read_text() == crd.text(), "make manifests"


def test_it_is_structural() -> None:
    for path, node in nodes(SCHEMA):
        free = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"} & node.keys()
        assert "type" in node or free, path
        assert not {"$ref", "$defs", "anyOf", "allOf", "oneOf", "title", "const", "examples"} & node.keys(), path


def test_every_field_is_described() -> None:
    own = {".apiVersion", ".kind", ".metadata"}
    assert [
        path for path, node in nodes(SCHEMA) if "description" not in node and path not in own and path[-1] != "]"
    ] == []


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_its_defaults_are_those_of_the_classes(path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    kept = defaulted(SCHEMA, written)
    expected = load(path).spec.model_dump(mode="json", by_alias=True)
    assert kept["spec"] == defaulted(SCHEMA["properties"]["spec"], without_empty(expected))
    assert ContinualModel.model_validate(kept) == load(path)


def without_empty(spec: dict[str, Any]) -> dict[str, Any]:
    """Classes that are not there, which a default cannot say: at least two are wanted."""
    if not spec["prediction"]["classes"]:
        del spec["prediction"]["classes"]
    return spec


def test_a_null_is_kept_only_where_it_says_something_else_than_the_default() -> None:
    assert [path for path, node in nodes(SCHEMA) if node.get("nullable")] == [".spec.rollout.watch"]


def test_rules_are_of_parts_and_fields_that_exist_and_begin_with_the_field() -> None:
    for name, rules in RULES.items():
        fields = {field.alias or key for key, field in PARTS[name].model_fields.items()}
        for rule in rules:
            first = rule.message.split(" ")[0].rstrip(",:").split(".")[0]
            assert first in fields, f"{name}: {rule.message}"
    for name, field in [*KEYS, *SETS]:
        assert field in {found.alias or key for key, found in PARTS[name].model_fields.items()}


def test_every_part_whose_fields_must_fit_has_rules_or_is_known_to_have_none() -> None:
    checked = {name for name, found in PARTS.items() if found.__pydantic_decorators__.model_validators}
    # Of these the lists say it: unlike items. Triggers: `combine` is a word or a mapping, which CEL cannot look into.
    assert checked - RULES.keys() == {"Features", "Triggers"}
    assert model.Features.__name__ in {name for name, _ in SETS}
