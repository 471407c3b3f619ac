"""What holds between fields, as the API server can check it: CEL rules for the validators of the parts.

Each rule stands for a `model_validator` of the part that it is listed under, and says the same. What CEL cannot say
is left to that validator, whose words then stand in the resource's status: whether a cron text, a time zone or
`triggers.combine` makes sense; names of features that only their window's length tells apart; lengths that are equal
but written differently; topics that are equal by their defaults.
"""

from dataclasses import dataclass

from tidemill.spec.inputs import EVENT_COLUMNS, LABEL_PREFIX

__all__ = ["KEYS", "RULES", "SETS", "Rule"]


@dataclass(frozen=True)
class Rule:
    """A CEL expression over `self`, the part. `message` begins with the field to look at."""

    expression: str
    message: str


def _seconds(text: str) -> str:
    """The length of the duration `text` in seconds; CEL's own `duration()` knows no days."""
    units = "{'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}"
    parts = f"{text}.findAll('[0-9.]+[a-z]+')"
    return f"{parts}.map(p, double(p.find('[0-9.]+')) * {units}[p.find('[a-z]+')]).sum()"


def _positive(field: str) -> Rule:
    name = {"for": "__for__"}.get(field, field)  # CEL keeps that word for itself
    return Rule(f"!has(self.{name}) || self.{name}.matches('[1-9]')", f"{field} must be longer than 0s")


_COLUMNS = ", ".join(f"'{name}'" for name in EVENT_COLUMNS)
_ANY_AGG = "['count', 'last', 'distinct']"

RULES: dict[str, tuple[Rule, ...]] = {
    "Alerts": (
        Rule(f"{_seconds('self.groupFor')} <= 3600.0", "groupFor must be at most 1h"),
        Rule(
            f"{_seconds('self.repeatAfter')} >= 60.0 && {_seconds('self.repeatAfter')} >= {_seconds('self.groupFor')}",
            "repeatAfter must be at least 1m, and groupFor",
        ),
    ),
    "Mute": (
        Rule("self.end > self.start", "end must be later than start"),
        Rule(
            "!has(self.every) || self.end - self.start < duration(self.every == '7d' ? '168h' : '24h')",
            "every must be longer than the time from start to end, which else would never end",
        ),
    ),
    "Prediction": (
        Rule(
            "self.type != 'regression' || has(self.tolerance)",
            "tolerance is needed for regression: how far an answer may be off before it is wrong",
        ),
        Rule("self.type == 'regression' || !has(self.tolerance)", "tolerance is for regression"),
        Rule(
            "(self.type == 'regression') != has(self.classes)",
            "classes are needed for classification and detection; a regression has none",
        ),
        Rule("self.type != 'regression' || !has(self.value)", "value is of mixing up classes; a regression has none"),
    ),
    "Maturity": (
        Rule(f"{_seconds('self.horizon')} >= {_seconds('self.after')}", "horizon must not be shorter than after"),
    ),
    "Labels": (
        Rule(
            "(self.conflict == 'priority') == (self.priority.size() > 0)",
            "priority names labellers for conflict: priority, which needs it",
        ),
    ),
    "EventField": (
        Rule(
            "self.type in ['float', 'int'] || !has(self.min) && !has(self.max)",
            "min and max are for fields of type float or int",
        ),
        Rule("!has(self.min) || !has(self.max) || self.min <= self.max", "min is above max"),
        Rule(
            "!has(self.enum) || self.type in ['string', 'int'] && self.enum.size() > 0"
            " && self.enum.all(v, type(v) == (self.type == 'int' ? int : string))",
            "enum is for fields of type string or int, and needs at least one value, each of that type",
        ),
        Rule("self.type == 'image' || self.uris.size() == 0", "uris is for fields of type image"),
    ),
    "Events": (
        Rule(
            "self.timestamp != self.entity.name && (!has(self.id) || !(self.id in [self.timestamp, self.entity.name]))",
            "id, timestamp and entity.name must differ",
        ),
        Rule(
            "self.fields.all(f, f.name != self.timestamp && f.name != self.entity.name"
            " && (!has(self.id) || f.name != self.id))",
            "fields are besides entity, id and timestamp, whose names they cannot bear",
        ),
        Rule(
            f"self.fields.all(f, !(f.name in [{_COLUMNS}]))",
            "fields cannot bear the name of a column that each events table has already",
        ),
        Rule("self.fields.filter(f, f.type == 'image').size() <= 1", "fields may have one image at most"),
    ),
    "Window": (
        Rule("has(self.of) || self.agg == 'count'", "of is needed: the field that the window is about"),
        Rule("has(self.q) == (self.agg == 'quantile')", "q is for agg quantile, which needs it"),
        Rule(
            f"self.over.map(l, {_seconds('l')}).all(s, s >= 6.0 && s <= 31536000.0 && int(s * 1000.0 + 0.5) % 60 == 0)",
            "over: a window is 6s to 365d long, and a whole number of milliseconds times 60",
        ),
    ),
    "DriftTrigger": (
        Rule(f"{_seconds('self.every')} >= 0.1", "every must be at least 100ms"),
        Rule(
            "self.falseAlarms.matches('[1-9].* per .*[1-9]')",
            "falseAlarms: a rate over some time, such as 1 per 30d, neither of them 0",
        ),
    ),
    "Budget": (_positive("per"),),
    "Guards": (_positive("latencyP99"),),
    "LatencyGate": (_positive("p99"),),
    "RolloutWatch": (_positive("for"),),
    "Gates": (
        Rule(
            "!has(self.frozen) || (self.frozen.metric == 'error' ? !has(self.frozen.atLeast) :"
            " !has(self.frozen.atMost))",
            "frozen: atMost is for the metric error, atLeast for f1, recall and precision",
        ),
    ),
    "Rollout": (
        Rule(
            "self.steps[self.steps.size() - 1].weight == 100"
            " && self.steps.map(s, s.weight).isSorted()"
            " && self.steps.all(s, self.steps.exists_one(t, t.weight == s.weight))",
            "steps must rise and end at 100",
        ),
        Rule(
            "self.steps.size() == 1"
            " || self.analysis.margin * self.analysis.margin * 100.0 < double(self.steps[0].weight)",
            "steps: the first cannot be judged at this analysis.margin (margin/√share must be below 1): "
            "raise its weight or lower the margin",
        ),
        Rule(
            "!self.shadow || self.cohorts.key == 'request'",
            "shadow: not with a key in cohorts: a key counts once, and would have counted before the first step",
        ),
    ),
    "Spec": (
        Rule(
            "!self.rollout.shadow || self.labels.control == 1.0",
            "rollout.shadow needs labels.control: 1.0: a copy is judged by the label of the champion's answer, and "
            "which answers are labelled may depend on them",
        ),
        Rule(
            "!self.rollout.shadow || self.serving.driver != 'knative'",
            "rollout.shadow: the knative driver sends no copies: use serving.driver: gateway, or leave shadow out",
        ),
        Rule(
            "self.features.image.size() == 0 || self.events.fields.exists(f, f.type == 'image')",
            "features.image needs a field of type image in events.fields",
        ),
        Rule(
            "!self.events.fields.exists(f, f.name in self.features.image)",
            "features.image: a field of events.fields has the name of a statistic",
        ),
        Rule(
            "!has(self.triggers.drift) || !('inputs' in self.triggers.drift.watch) || self.features.image.size() > 0"
            " || self.events.fields.exists(f, f.type != 'image')",
            "triggers.drift has nothing to watch: features.image is empty, all fields are pictures",
        ),
        Rule(
            "!has(self.triggers.drift) || self.triggers.drift.slices.all(s, s == self.events.entity.name"
            " || self.events.fields.exists(f, f.name == s && f.type in ['string', 'int', 'bool']))",
            "triggers.drift.slices: a group is the entity's name or a field of type string, int or bool",
        ),
        Rule(
            "self.gates.slices.all(s, s.by == self.events.entity.name"
            " || self.events.fields.exists(f, f.name == s.by && f.type in ['string', 'int', 'bool']))",
            "gates.slices: a group is the entity's name or a field of type string, int or bool",
        ),
        Rule(
            "self.prediction.type != 'regression' || self.gates.fresh.metric == 'error'"
            " && self.gates.slices.all(s, s.metric == 'error')"
            " && (!has(self.gates.frozen) || self.gates.frozen.metric == 'error')",
            "gates: f1, recall and precision are of classes, and a regression has none: use error",
        ),
        Rule(
            "self.prediction.type != 'regression' || !has(self.gates.calibration)",
            "gates.calibration is of confidences, and a regression has none",
        ),
        Rule(
            "!has(self.triggers.performance) || has(self.triggers.drift) && 'errors' in self.triggers.drift.watch",
            "triggers.performance needs triggers.drift with errors in its watch, whose votes it counts",
        ),
        Rule(
            "!has(self.triggers.newClass) || self.labels.fields.exists(l, l.type == 'class')",
            "triggers.newClass needs a field of type class in labels.fields",
        ),
        Rule(
            "self.features.windows.all(w, !has(w.of) || w.of in self.features.image"
            f" || self.events.fields.exists(f, f.name == w.of && f.type != 'image'"
            f" && (f.type != 'string' || w.agg in {_ANY_AGG}))"
            f" || self.labels.fields.exists(l, '{LABEL_PREFIX}' + l.name == w.of && l.type != 'box'"
            f" && (!(l.type in ['string', 'class']) || w.agg in {_ANY_AGG})))",
            "features.windows: of is a field of events.fields that is no picture, a statistic of features.image, or "
            "label. and a field of labels.fields that is no box; of text there is only count, last and distinct",
        ),
        Rule(
            "self.serving.log.redact.all(r, !(r in ['class', 'value', 'box']))",
            "serving.log.redact: an outcome cannot be judged without the answer's class, value and box",
        ),
        Rule(
            "has(self.features.service) || self.serving.log.redact.all(r, r == 'confidence'"
            " || r in self.features.image || self.events.fields.exists(f, f.name == r)"
            " || self.features.windows.exists(w, r.startsWith(w.name + '_')))",
            "serving.log.redact names fields of events.fields, features or confidence",
        ),
        Rule(
            "self.prediction.type != 'regression'"
            " || self.labels.fields.filter(l, l.type in ['float', 'int']).size() == 1",
            "labels.fields needs one field of type float or int: regression is judged by it",
        ),
        Rule(
            "self.prediction.type != 'regression' || !self.labels.fields.exists(l, l.type == 'class')",
            "labels.fields: a field of type class needs prediction.classes",
        ),
        Rule(
            "self.prediction.type == 'regression' || self.labels.fields.exists(l, l.type in ['class', 'bool'])",
            "labels.fields needs a field of type class, or bool for whether anything was found: "
            "nothing else says if an answer was right",
        ),
        Rule(
            "self.prediction.type == 'regression' || self.labels.fields.filter(l, l.type == 'class').size() <= 1"
            " && self.labels.fields.filter(l, l.type == 'box').size() <= 1",
            "labels.fields may have one field of type class and one of type box at most",
        ),
    ),
    "ContinualModel": (
        Rule(
            "self.metadata.name.matches('^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$')",
            "metadata.name must be lower-case letters, digits and dashes, start with a letter, and be at most 63 long",
        ),
        Rule(
            "!has(self.spec.events.topic) || !has(self.spec.labels.topic)"
            " || self.spec.events.topic != self.spec.labels.topic",
            "spec.labels.topic must differ from spec.events.topic",
        ),
    ),
}
"""By the class of the part."""

KEYS = {
    ("Events", "fields"): "name",
    ("Labels", "fields"): "name",
    ("Alerts", "routes"): "name",
    ("Status", "conditions"): "type",
}
"""Lists whose items are told apart by one of their fields: the API server refuses a repeated one."""

SETS = {
    ("EventField", "enum"),
    ("Features", "image"),
    ("Window", "over"),
    ("Prediction", "classes"),
    ("Labels", "priority"),
    ("DriftTrigger", "slices"),
    ("PredictionLogging", "redact"),
}
"""Lists of values that are all different."""
