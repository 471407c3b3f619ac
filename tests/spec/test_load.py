"""From YAML to a ContinualModel, or to every problem with its place."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput, NotFound, SpecError
from tidemill.spec import planned
from tidemill.spec.load import load, loads
from tidemill.spec.model import PATTERNS, ContinualModel

VALID = """\
apiVersion: tidemill.dev/v1alpha1
kind: ContinualModel
metadata: {name: phone-inspection}
spec:
  events:
    entity: {name: station}
    id: event_id
    timestamp: captured_at
    fields:
      - {name: image, type: image}
      - {name: exposure_ms, type: float, min: 0, max: 1000}
  features:
    image: [brightness, contrast]
  prediction: {type: detection, classes: [ok, scratch]}
  labels:
    fields:
      - {name: defect, type: class}
      - {name: box, type: box}
    maturity: {after: 30m, horizon: 14d}
    control: 0.05
  model:
    codec: inspection.model:Codec
    trainer: inspection.model:Trainer
  triggers:
    drift: {tolerance: 0.05, falseAlarms: 1 per 30d, every: 10s}
  rollout:
    steps: [{weight: 5}, {weight: 25}, {weight: 100}]
"""

# DESIGN's whole resource: what is planned is in it too.
WHOLE = """\
apiVersion: tidemill.dev/v1alpha1
kind: ContinualModel
metadata: {name: phone-inspection}
spec:
  paused: false
  events:
    topic: phone-inspection.events
    entity: {name: station, type: string}
    id: event_id
    timestamp: captured_at
    allowedLateness: 10m
    maxFuture: 1m
    fields:
      - {name: image, type: image}
      - {name: exposure_ms, type: float, min: 0, max: 1000}
    quarantine: {stopAbove: 0.5}
  features:
    image: [brightness, contrast, sharpness, saturation, clipping]
    windows:
      - {name: seen, agg: count, over: [10m, 1h]}
    service: null
    freshness: 30s
  prediction: {type: detection, classes: [ok, scratch], value: {missed: 20, falseReject: 1}}
  labels:
    topic: phone-inspection.labels
    fields: [{name: defect, type: bool}]
    maturity: {after: 30m, horizon: 14d, absent: unknown}
    conflict: majority
    minAgreement: 0.8
    control: 0.05
  model:
    image: registry.example/inspection@sha256:0
    codec: inspection.model:Codec
    trainer: inspection.model:Trainer
    initial: version
    warmStart: true
    replay: {fraction: 0.3, strategy: reservoir}
    resources: {cpu: 2, memory: 4Gi}
  triggers:
    schedule: {cron: "0 3 * * *", timezone: Europe/Berlin}
    drift: {tolerance: 0.05, falseAlarms: 1 per 30d, every: 10s}
    performance: {metric: error, rise: 0.03, risk: 0.05}
    volume: {newLabels: 5000}
    newClass: {minExamples: 50}
    combine: any
    cooldown: 1h
    budget: {runs: 8, per: 1d}
  gates:
    fresh: {metric: f1, notWorseThan: champion, margin: 0.01}
    frozen: {dataset: golden, metric: f1, atLeast: 0.90}
    slices: [{by: station, metric: recall, maxGap: 0.10}]
    latency: {p99: 50ms}
  rollout:
    approval: none
    steps: [{weight: 5}, {weight: 25}, {weight: 50}, {weight: 100}]
    analysis: {metric: error, margin: 0.02, risk: 0.05, minOutcomes: 50, timeout: 3d, onTimeout: hold}
    guards: {errors: 0.02, latencyP99: 100ms}
    cohorts: {key: request}
    shadow: false
    watch: {for: 2d, holdback: 0}
  serving: {replicas: 1, driver: auto, serviceAccountName: default, log: {sample: 0.5, redact: [exposure_ms]}}
  artifactRoot: s3://models
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(SpecError) as caught:
        loads(text, "m.yaml")
    return [str(problem) for problem in caught.value.problems]


def changed(old: str, new: str) -> str:
    assert VALID.count(old) == 1
    return VALID.replace(old, new)


def test_a_minimal_resource_gets_safe_defaults() -> None:
    resource = loads(VALID, "m.yaml")
    assert resource.id == "default.phone-inspection"
    assert resource.events_topic == "default.phone-inspection.events"
    assert resource.watched_features == ("exposure_ms", "brightness", "contrast")
    assert not resource.spec.paused
    assert len(VALID.splitlines()) <= 30


def test_text_yes_or_no_and_numbers_of_a_list_are_watched_as_categories() -> None:
    one = "{name: exposure_ms, type: float, min: 0, max: 1000}"
    more = ["{name: line, type: int, enum: [1, 2]}", "{name: wet, type: bool}", "{name: material, type: string}"]
    resource = loads(changed(f"- {one}", "\n      - ".join([f"- {one}", *more])), "m.yaml")
    assert resource.watched_features == ("exposure_ms", "brightness", "contrast")
    assert resource.watched_categories == ("line", "wet", "material")


def test_a_resource_is_the_same_after_writing_and_reading_it() -> None:
    resource = loads(VALID, "m.yaml")
    again = yaml.safe_dump(resource.model_dump(by_alias=True, mode="json"))
    assert loads(again, "again") == resource


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = (
        changed("{name: phone-inspection}", "{name: Phone}")
        .replace("{weight: 25}", "{Weight: 25}")
        .replace("30m", "soon")
    )
    assert problems(text) == [
        'm.yaml:3: metadata.name: expected a name of lower-case letters, digits and dashes that starts with a letter, '
        'not "Phone"',
        "m.yaml:19: spec.labels.maturity.after: expected a duration such as 30s, 10m or 1h30m "
        "(units ms, s, m, h, d), not 'soon'",
        "m.yaml:27: spec.rollout.steps[1].weight: is required: The candidate's share of requests in percent",
        "m.yaml:27: spec.rollout.steps[1].Weight: unknown field; did you mean weight?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("control: 0.05", "contrl: 0.05", "m.yaml:20: spec.labels.contrl: unknown field; did you mean control?"),
        ("control: 0.05", "control: 5", "m.yaml:20: spec.labels.control: expected less than or equal to 1, not 5"),
        ("control: 0.05", "control: '0.05'", 'm.yaml:20: spec.labels.control: expected a number, not "0.05"'),
        ("control: 0.05", "control: .nan", "m.yaml:20: spec.labels.control: expected a finite number, not NaN"),
        (
            "control: 0.05",
            "zzz: 1",
            "m.yaml:20: spec.labels.zzz: unknown field; expected one of topic, fields, maturity, control, conflict, "
            "priority, minAgreement",
        ),
        (
            "  features:\n    image: [brightness, contrast]",
            "  features: {image: [lightness]}",
            "m.yaml:12: spec.features.image[0]: expected 'brightness', 'contrast', 'sharpness', 'saturation' or "
            "'clipping', not \"lightness\"; did you mean brightness?",
        ),
        (
            "type: detection, classes: [ok, scratch]",
            "type: detection, classes: [ok]",
            "m.yaml:14: spec.prediction.classes: expected at least 2 items, not 1",
        ),
        ("classes: [ok, scratch]", "classes: [ok, ok]", "m.yaml:14: spec.prediction: class ok is there twice"),
        ("    timestamp: captured_at\n", "", "m.yaml:5: spec.events.timestamp: is required: Field with the event time: "
         "ISO 8601 with a zone, or milliseconds since the epoch"),
        ("timestamp: captured_at", "timestamp: station", "m.yaml:5: spec.events: field station is there twice"),
        ("name: exposure_ms, type: float", "name: b, type: image", "m.yaml:11: spec.events.fields[1]: "
         "min and max are for numbers; b is of type image"),
        ("name: exposure_ms", "name: contrast", "m.yaml:4: spec: feature contrast is there twice"),
        ("type: class", "type: float", "m.yaml:16: spec: labels.fields needs a field of type class, or bool for "
         "whether anything was found: nothing else says if an answer was right"),
        ("type: class", "type: box", "m.yaml:16: spec: labels.fields needs a field of type class, or bool for "
         "whether anything was found: nothing else says if an answer was right"),
        ("{name: box, type: box}", "{name: other, type: class}",
         "m.yaml:16: spec: labels.fields: a field of type class is there twice"),
        ("horizon: 14d", "horizon: 1m", "m.yaml:19: spec.labels.maturity: horizon must not be shorter than after"),
        ("every: 10s", "every: 1ms", "m.yaml:25: spec.triggers.drift: every must be at least 100ms"),
        ("every: 10s}", 'every: 10s}\n    schedule: {cron: "0 0 3 * * *"}', "m.yaml:26: spec.triggers.schedule.cron: "
         "five cron fields (minute, hour, day of month, month, weekday) such as '0 3 * * *', not 6"),
        ("1 per 30d", "1 per 0s", "m.yaml:25: spec.triggers.drift.falseAlarms: expected a rate over some time, "
         "such as '1 per 30d', not '1 per 0s'"),
        ("weight: 25}", "weight: 3}", "m.yaml:27: spec.rollout: steps must rise and end at 100, not [5, 3, 100]"),
        ("{name: station}", "station", 'm.yaml:6: spec.events.entity: expected a mapping, not "station"'),
        ("kind: ContinualModel", "kind: Pod", "m.yaml:2: kind: expected 'ContinualModel', not \"Pod\""),
        ("id: event_id", "id: !!python/name:os.system x", "m.yaml:7: spec.events.id: the tag "
         "tag:yaml.org,2002:python/name:os.system is not allowed"),
        ("id: event_id", "id: e\n    id: f", "m.yaml:8: spec.events.id: given twice; the first is on line 7"),
        ("id: event_id", "[1]: 2", "m.yaml:7: spec.events: a key must be text"),
        ("{name: phone-inspection}", "{name: phone-inspection, labels: {a: 1}}",
         "m.yaml:3: metadata.labels.a: expected text (in quotes, if it looks like something else), not 1"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_line_path_and_what_was_expected(old: str, new: str, told: str) -> None:
    assert problems(changed(old, new)) == [told]


def test_features_need_the_field_they_are_computed_from() -> None:
    text = changed("      - {name: image, type: image}\n", "")
    assert problems(text) == ["m.yaml:12: spec: features.image needs a field of type image in events.fields"]


def test_drift_of_inputs_needs_an_input_that_is_no_picture() -> None:
    number = "{name: exposure_ms, type: float, min: 0, max: 1000}"
    blind = changed("image: [brightness, contrast]", "image: []").replace(f"      - {number}\n", "")
    assert "has nothing to watch" in problems(blind)[0]
    with_text = changed("image: [brightness, contrast]", "image: []").replace(number, "{name: note, type: string}")
    assert loads(with_text, "m.yaml").watched_categories == ("note",)


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (
            "x.y",
            "expected a field name (letters, digits and _, not starting with a digit), or label. and a "
            'label\'s field, not "x.y"',
        ),
        ("7", "expected text (in quotes, if it looks like something else), not 7"),
    ],
)
def test_a_window_is_of_a_field_of_events(of: str, told: str) -> None:
    window = f"    windows:\n      - {{name: heat, agg: mean, of: {of}, over: [1h]}}\n  prediction:"
    (found,) = problems(changed("  prediction:", window))
    assert found.endswith(f"spec.features.windows[0].of: {told}"), found


def test_events_and_labels_are_two_topics() -> None:
    text = changed("    entity:", "    topic: both\n    entity:").replace("  labels:\n", "  labels:\n    topic: both\n")
    assert problems(text) == ["m.yaml:1: topic both is there twice"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "m.yaml:1: it is empty; a ContinualModel was expected"),
        ("# only a comment\n", "m.yaml:1: it is empty; a ContinualModel was expected"),
        ("- a\n", "m.yaml:1: a mapping was expected (apiVersion, kind, metadata, spec)"),
        (VALID + "---\n" + VALID, "m.yaml:29: a second document starts here; a file holds one resource"),
        (b"kind: \xff\n", "m.yaml:1: not UTF-8 text: invalid start byte"),
        ("a: " + "[" * 5000, "m.yaml:1: nested more than 40 deep"),
        ("a: &a [*a]\n", "m.yaml:1: its aliases stand for too much"),
        ("a" * (2**20 + 1), "m.yaml: 1,048,577 bytes; a resource has at most 1,048,576"),
    ],
)
def test_what_is_no_resource_at_all_is_told_so(text: str | bytes, told: str) -> None:
    assert problems(text) == [told]


def test_a_tab_is_named_as_the_culprit() -> None:
    (told,) = problems("kind: ContinualModel\nspec:\n\tpaused: true\n")
    assert told.startswith("m.yaml:3: not valid YAML")
    assert told.endswith("indent with spaces, not tabs")


def test_a_bomb_of_aliases_is_refused_before_it_bursts() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    (told,) = problems("\n".join(lines))
    assert told.endswith("its aliases stand for too much")


def test_an_honest_alias_is_followed() -> None:
    text = changed("{after: 30m, horizon: 14d}", "{after: &t 30m, horizon: *t}")
    assert loads(text, "m.yaml").spec.labels.maturity.horizon.total_seconds() == 1800


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "phone.yaml"
    with pytest.raises(NotFound, match=r"phone\.yaml does not exist"):
        load(file)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load(tmp_path)
    file.write_text("spec: [")
    with pytest.raises(SpecError, match=r"phone\.yaml:2: not valid YAML"):
        load(file)
    file.write_text(VALID)
    assert load(file) == loads(VALID, "m.yaml")


def test_what_is_planned_is_told_as_planned_and_nothing_else_is_wrong_with_it() -> None:
    told = problems(WHOLE)
    assert all("planned, not built yet (stage " in one for one in told), told
    paths = {one.split(": ")[1] for one in told}
    assert paths == planned.FIELDS.keys()


def test_what_is_built_is_no_longer_called_planned() -> None:
    def names(schema: dict[str, Any], path: str) -> set[str]:
        found = set()
        for name, field in schema.get("properties", {}).items():
            found.add(f"{path}.{name}")
            for part in (field, field.get("items", {}), *field.get("anyOf", ())):
                reference = part.get("$ref", "").removeprefix("#/$defs/")
                found |= names(definitions.get(reference, {}), f"{path}.{name}")
        return found

    schema = ContinualModel.model_json_schema()
    definitions = schema["$defs"]
    built = names(definitions["Spec"], "spec")
    assert "spec.labels.maturity.after" in built
    assert "spec.rollout.steps.weight" in built
    assert not built & planned.FIELDS.keys()


def test_each_pattern_has_words_and_each_field_a_description() -> None:
    schema = ContinualModel.model_json_schema()
    text = str(schema)
    assert all(repr(pattern)[1:-1] in text for pattern in PATTERNS)
    for part in [*schema["$defs"].values(), schema]:
        for name, field in part.get("properties", {}).items():
            known = field.get("description") or "$ref" in field or name in {"apiVersion", "kind"}
            assert known, f"{part['title']}.{name} has no description"


def test_numbers_as_yaml_reads_them_are_shown_as_json() -> None:
    assert problems(changed("id: event_id", "id: 1:30")) == [
        "m.yaml:7: spec.events.id: expected text (in quotes, if it looks like something else), not 90"
    ]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["10m", "1 per 30d", "99999999999d", "9" * 400 + "s", "0s", "a:B", "image", "class"]),
)
junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_change_of_a_resource_gives_a_resource_or_a_spec_error(data: st.DataObject) -> None:
    resource: Any = {"root": copy.deepcopy(yaml.safe_load(VALID))}
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(places(resource)[1:]))
        holder = resource
        for step in parents:
            holder = holder[step]
        if data.draw(st.booleans()) or not parents:
            holder[last] = data.draw(junk)
        elif isinstance(holder, dict) and data.draw(st.booleans()):
            holder[data.draw(st.text(max_size=6))] = holder.pop(last)
        else:
            del holder[last]
    told_or_made(yaml.safe_dump(resource["root"]))


@settings(max_examples=300)
@given(st.integers(0, len(VALID)), st.integers(0, 30), st.text(max_size=12) | st.sampled_from("\t\0[]{}:,&*!|>'\"%@`"))
def test_any_change_of_the_text_gives_a_resource_or_a_spec_error(start: int, length: int, new: str) -> None:
    told_or_made(VALID[:start] + new + VALID[start + length :])


@given(st.binary(max_size=200))
def test_any_bytes_give_a_spec_error(text: bytes) -> None:
    assert problems(text)


def told_or_made(text: str) -> None:
    try:
        loads(text, "m.yaml")
    except SpecError:
        assert all(told.startswith("m.yaml") for told in problems(text))


def with_log(log: str, features: str = "{image: [brightness]}") -> str:
    text = VALID.replace("features:\n    image: [brightness, contrast]", f"features: {features}")
    return f"{text}  serving: {{log: {log}}}\n"


def test_features_and_the_confidence_can_be_left_out_of_the_log() -> None:
    windows = "{image: [brightness], windows: [{name: seen, agg: count, over: [10m]}]}"
    resource = loads(with_log("{sample: 0.2, redact: [seen_10m, exposure_ms, confidence]}", windows), "m.yaml")
    assert resource.spec.serving.log.redact == ("seen_10m", "exposure_ms", "confidence")
    of_a_service = with_log("{redact: [income]}", "{service: scoring}")
    assert loads(of_a_service, "m.yaml").spec.serving.log.redact == ("income",)


@pytest.mark.parametrize(
    ("redact", "reason"),
    [
        ("class", "an outcome cannot be judged without the answer's class"),
        ("box", "an outcome cannot be judged without the answer's box"),
        ("seen", "seen: there are image, exposure_ms, brightness and confidence"),
        ("brightness, brightness", "a name brightness is there twice"),
    ],
)
def test_what_is_needed_or_unknown_cannot_be_left_out_of_the_log(redact: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        loads(with_log(f"{{redact: [{redact}]}}"), "m.yaml")


@pytest.mark.parametrize(
    ("slices", "told"),
    [("[exposure_ms]", "exposure_ms is no group; there are station"), ("[station, station]", "station is there twice")],
)
def test_slices_are_groups_each_named_once(slices: str, told: str) -> None:
    resource = loads(changed("every: 10s}", "every: 10s, slices: [station]}"), "m.yaml")
    assert resource.spec.triggers.drift is not None
    assert resource.spec.triggers.drift.slices == ("station",)
    with pytest.raises(SpecError, match=told):
        loads(changed("every: 10s}", f"every: 10s, slices: {slices}}}"), "m.yaml")
