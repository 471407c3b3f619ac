"""The page of a run that the KFP UI shows: why it ran, on which data, what the gates said, where the version errs.

One file that fetches nothing. What came from users or events stands in it as text, never as markup.
"""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from jinja2 import Environment, StrictUndefined

from tidemill.core.clock import from_ms
from tidemill.evaluation.gates import GateVerdict
from tidemill.evaluation.scoring import Evaluation, Rows, Scores
from tidemill.evaluation.tables import confusion, figures, group_figures, worst_rows
from tidemill.retrain.grant import Grant
from tidemill.training.snapshot import SnapshotRecord
from tidemill.training.verdict import WORDS

__all__ = ["Matrix", "matrix", "render"]

Matrix = tuple[list[str], list[list[int]]]
"""The names of classes, and rows by true class, then by answered class."""

_MOST_ROWS = 20


def matrix(evaluation: Evaluation, scores: Scores | None) -> Matrix:
    """The confusion matrix of a version on the fresh rows; empty for a regression, and without the version."""
    if scores is None or not evaluation.classes:
        return [], []
    counts = confusion(evaluation.rows, scores)
    seen = {*counts, *(answer for row in counts.values() for answer in row)}
    names = [*evaluation.classes, *sorted(seen - set(evaluation.classes))]
    return names, [[counts.get(truth, {}).get(answer, 0) for answer in names] for truth in names]


def render(
    grant: Grant, record: SnapshotRecord, evaluation: Evaluation, verdicts: Sequence[GateVerdict], *, snapshot: str
) -> str:
    """The page as HTML. `snapshot` is the digest of the rows' snapshot."""
    compared = [("candidate", evaluation.candidate)]
    compared += [("champion", evaluation.champion)] if evaluation.champion else []
    return _template.render(
        grant=grant,
        record=record,
        as_of=from_ms(record.as_of).astimezone(UTC),
        snapshot=snapshot,
        verdicts=verdicts,
        versions=[_version(role, evaluation, evaluation.rows, scores) for role, scores in compared],
        groups={name: group_figures(evaluation, name) for name in evaluation.rows.groups},
        worst=worst_rows(evaluation.fresh, _MOST_ROWS) if evaluation.rows.ids else [],
        words=WORDS,
    )


def _version(role: str, evaluation: Evaluation, rows: Rows, scores: Scores) -> dict[str, Any]:
    names, counts = matrix(evaluation, scores)
    found = figures(evaluation, rows, scores) if evaluation.classes else {"error": scores.mean}
    return {"role": role, "version": scores.version, "figures": found, "names": names, "counts": counts}


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ grant.run }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2b33; background: #fff; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
p { margin: .2rem 0 } .quiet { color: #5b6b73 }
table { border-collapse: collapse; margin: .4rem 0; display: block; overflow-x: auto }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #dfe6ea; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.passed { color: #14663d } .refused { color: #a3201d; font-weight: 600 } .not { color: #5b6b73 }
code { font-size: .92em; overflow-wrap: anywhere }
</style>
</head>
<body>
<h1>{{ grant.run }}</h1>
<p class="quiet">{{ record.model }}, {{ grant.cause }}: {{ grant.reason }}</p>
{% if grant.skip_gates %}
<p class="refused">The gates were skipped by force: they are shown, and not enforced.</p>
{% endif %}

<h2>Gates</h2>
<table>
<tr><th>gate</th><th>verdict</th><th>why</th></tr>
{% for one in verdicts %}
<tr><td>{{ one.gate }}</td>
<td class="{{ words[one.passed].split(' ')[0] }}">{{ words[one.passed] }}</td><td>{{ one.reason }}</td></tr>
{% endfor %}
</table>

<h2>Data</h2>
<p>Snapshot <code>{{ snapshot }}</code>, of what had arrived by {{ as_of.strftime("%Y-%m-%d %H:%M:%S") }} UTC.</p>
<table>
<tr>{% for part in record.rows %}<th class="n">{{ part }}</th>{% endfor %}
<th class="n">disputed</th><th class="n">invalid labels</th></tr>
<tr>{% for part, count in record.rows.items() %}<td class="n">{{ "{:,}".format(count) }}</td>{% endfor %}
<td class="n">{{ record.disputed }}</td><td class="n">{{ record.invalid_labels }}</td></tr>
</table>
<p class="quiet">{{ record.query }}</p>

<h2>On the fresh rows</h2>
<table>
<tr><th>version</th><th></th>{% for name in versions[0].figures %}<th class="n">{{ name }}</th>{% endfor %}</tr>
{% for one in versions %}
<tr><td>{{ one.version }}</td><td class="quiet">{{ one.role }}</td>
{% for value in one.figures.values() %}<td class="n">{{ "%.4f" % value }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% for one in versions if one.names %}
<h2>Confusion of the {{ one.role }}</h2>
<table>
<tr><th>true \\ answered</th>{% for name in one.names %}<th class="n">{{ name }}</th>{% endfor %}</tr>
{% for row in one.counts %}
<tr><th>{{ one.names[loop.index0] }}</th>{% for count in row %}<td class="n">{{ count }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
{% for by, found in groups.items() %}
<h2>By {{ by }}</h2>
<table>
<tr><th>{{ by }}</th>
{% for name in (found.values() | first) %}<th class="n">{{ name.replace("_", " ") }}</th>{% endfor %}</tr>
{% for name, row in found.items() %}
<tr><td>{{ name }}</td>{% for key, value in row.items() %}
<td class="n">{{ "%d" % value if key == "rows" else "%.3f" % value }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
{% if worst %}
<h2>Wrong answers, those first that the champion had right</h2>
<table>
<tr><th>event</th><th>entity</th><th>true</th><th>answered</th><th class="n">confidence</th><th>champion</th></tr>
{% for row in worst %}
<tr><td>{{ row.id }}</td><td>{{ row.entity }}</td><td>{{ row.truth }}</td><td>{{ row.answer }}</td>
<td class="n">{{ "" if row.confidence is none else "%.2f" % row.confidence }}</td>
<td>{{ {none: "", true: "right", false: "wrong"}[row.champion_right] }}</td></tr>
{% endfor %}
</table>
{% endif %}
</body>
</html>
"""

_template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_PAGE)
