"""The table of quality: what counts where, and that corrections leave no trace."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidemill.metrics.measures import Measures
from tidemill.metrics.quality import Cell, Judged, QualityTable
from tidemill.spec.model import LabelField, Prediction

MEASURES = Measures(
    Prediction(type="classification", classes=("ok", "scratch")), (LabelField(name="defect", type="class"),)
)

cells = st.builds(Cell, st.sampled_from(["v1", "v2"]), st.sampled_from(["", "north"]), window=st.integers(0, 2))
answers = st.sampled_from([{"class": "ok", "confidence": 0.9}, {"class": "scratch"}, {}])
labels: st.SearchStrategy[Any] = st.sampled_from([None, {"defect": "ok"}, {"defect": "scratch"}, {"defect": 7}])
judged = st.builds(Judged, answers, labels, disputed=st.booleans())


def table(outcomes: list[tuple[Cell, Judged]]) -> QualityTable:
    made = QualityTable(MEASURES)
    for cell, outcome in outcomes:
        made.add(cell, outcome)
    return made


def seen(made: QualityTable) -> dict[Cell, Any]:
    return {cell: (made.count(cell), made.count(cell, "disputed"), made.figures(cell)) for cell in made.cells()}


@given(st.lists(st.tuples(cells, judged), max_size=12), st.lists(st.tuples(cells, judged), max_size=4), st.data())
def test_corrections_splits_and_orders_leave_what_a_new_count_gives(
    outcomes: list[tuple[Cell, Judged]], wrong: list[tuple[Cell, Judged]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(outcomes)))
    first = table([*wrong, *outcomes[:cut]])
    first.merge(table(data.draw(st.permutations(outcomes[cut:]))))
    for cell, outcome in wrong:
        first.remove(cell, outcome)
    assert seen(first) == seen(table(outcomes))


def test_outcomes_without_label_count_and_are_not_scored() -> None:
    cell = Cell("v1")
    made = table(
        [
            (cell, Judged({"class": "ok"}, {"defect": "ok"})),
            (cell, Judged({"class": "ok"}, {"defect": "scratch"}, assumed=True)),
            (cell, Judged({"class": "ok"})),
            (cell, Judged({"class": "ok"}, disputed=True)),
            (cell, Judged({"class": "ok"}, {"defect": 7})),
        ]
    )
    assert [made.count(cell, what) for what in ("outcomes", "labelled", "assumed", "disputed", "unjudged")] == [
        *(5, 2, 1, 1, 1)
    ]
    figures = made.figures(cell)
    assert figures is not None
    assert (figures.labelled, figures.error) == (2, 0.5)
    assert made.figures(Cell("v2")) is None
    assert list(made.cells()) == [cell]
