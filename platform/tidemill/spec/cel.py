"""What must hold between fields, as CEL rules for the API server: the models' own validators, said once more."""

from dataclasses import dataclass

__all__ = ["RULES", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression over `self` that must hold, and what to say where it does not."""

    cel: str
    message: str


_CLASSES = "has(self.prediction.type) && self.prediction.type == 'regression'"

RULES = {
    "": (
        Rule(
            "self.metadata.name.matches('^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$')",
            "metadata.name: expected a name of lower-case letters, digits and dashes that starts with a letter",
        ),
    ),
    "spec": (
        Rule(
            "size(self.features.image) == 0 || self.events.fields.exists(f, f.type == 'image')",
            "features.image needs a field of type image in events.fields",
        ),
        Rule(
            "!has(self.triggers.performance) || (has(self.triggers.drift) && 'errors' in self.triggers.drift.watch)",
            "triggers.performance needs triggers.drift with errors in its watch, whose votes it counts",
        ),
        Rule(
            "!has(self.triggers.newClass) || self.labels.fields.exists(f, f.type == 'class')",
            "triggers.newClass needs a field of type class in labels.fields",
        ),
        Rule(
            f"({_CLASSES}) || self.labels.fields.exists(f, f.type == 'class' || f.type == 'bool')",
            "labels.fields needs a field of type class, or bool for whether anything was found: "
            "nothing else says if an answer was right",
        ),
        Rule(
            f"!({_CLASSES}) || self.labels.fields.filter(f, f.type == 'float' || f.type == 'int').size() == 1",
            "labels.fields needs one field of type float or int: regression is judged by it",
        ),
        Rule(
            f"!({_CLASSES}) || !self.labels.fields.exists(f, f.type == 'class')",
            "labels.fields: a field of type class needs prediction.classes",
        ),
        Rule(
            f"!({_CLASSES}) || self.gates.fresh.metric == 'error'",
            "gates.fresh: f1, recall and precision are of classes, and a regression has none: use error",
        ),
        Rule(
            f"!({_CLASSES}) || !has(self.gates.calibration)",
            "gates.calibration is of confidences, and a regression has none",
        ),
    ),
    "spec.events": (
        Rule(
            "self.fields.filter(f, f.type == 'image').size() <= 1",
            "fields: an event has at most one image",
        ),
    ),
    "spec.events.fields[]": (
        Rule(
            "self.type in ['float', 'int'] || (!has(self.min) && !has(self.max))",
            "min and max are for numbers",
        ),
        Rule("!has(self.min) || !has(self.max) || self.min <= self.max", "min is above max"),
        Rule("!has(self.enum) || self.type in ['string', 'int']", "enum is for strings and whole numbers"),
    ),
    "spec.features.windows[]": (
        Rule("has(self.of) || self.agg == 'count'", "of is needed, the field it is about, for every agg but count"),
        Rule("has(self.q) == (self.agg == 'quantile')", "q is for agg quantile, which needs it"),
    ),
    "spec.prediction": (
        Rule(
            "self.type != 'regression' || has(self.tolerance)",
            "tolerance is needed by a regression: how far an answer may be off before it is wrong",
        ),
        Rule(
            "self.type != 'regression' || (size(self.classes) == 0 && !has(self.value))",
            "classes and value are not for a regression, which answers a number",
        ),
        Rule(
            "self.type == 'regression' || size(self.classes) > 0",
            "classes are needed; the first means that nothing was found",
        ),
        Rule("self.type == 'regression' || !has(self.tolerance)", "tolerance is for regression"),
    ),
    "spec.labels": (
        Rule(
            "(self.conflict == 'priority') == (size(self.priority) > 0)",
            "priority names labellers for conflict: priority, which needs it",
        ),
    ),
    "spec.gates.frozen": (
        Rule(
            "self.metric == 'error' ? !has(self.atLeast) : !has(self.atMost)",
            "atMost is for the metric error, atLeast for f1, recall and precision",
        ),
    ),
    "spec.rollout.steps": (
        Rule(
            "self[size(self) - 1].weight == 100 && self.map(s, s.weight).isSorted() "
            "&& self.all(s, self.filter(t, t.weight == s.weight).size() == 1)",
            "steps must rise and end at 100",
        ),
    ),
}
"""Rules by the path of the value that `self` is; `[]` is each item of a list."""
