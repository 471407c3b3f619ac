"""What is no answer is told, and counts as a wrong one."""

from collections.abc import Sequence

from tidemill.core.errors import UserCodeError
from tidemill.evaluation.answering import answers_of, rows_of, score
from tidemill.testing.training import events_frame, labels_frame, tiny_resource
from tidemill.training.protocols import Answer, Row


class Model:
    """Answers each row with its own `says`; fails on what says nothing, and on more rows than it takes together."""

    version = "v1"

    def __init__(self, together: int = 100) -> None:
        self.together = together

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        if any(row["says"] is None for row in rows) or len(rows) > self.together:
            raise UserCodeError("confidence should be a number in [0, 1]")
        return [{"class": row["says"], "confidence": 1.0} for row in rows]


ROWS: list[Row] = [{"says": "ok"}, {"says": None}, {"says": "ok"}, {"says": "scratch"}]
TRUTH = [{"defect": "ok"}, {"defect": "ok"}, {"defect": "scratch"}, {"defect": "scratch"}]


def test_scores_keep_the_order_of_the_rows_and_a_missing_answer_is_a_wrong_one() -> None:
    found = score(Model(), ROWS, TRUTH, tiny_resource())
    assert found.losses == (0.0, 1.0, 1.0, 0.0)
    assert found.classes == ("ok", "(none)", "ok", "scratch")
    assert found.confidences == (1.0, None, 1.0, 1.0)
    assert (found.unanswered, found.problems) == (1, ("confidence should be a number in [0, 1]",))


def test_a_model_that_answers_rows_alone_and_not_together_does_not_answer() -> None:
    rows: list[Row] = [{"says": "ok"}] * 4
    answers, problems = answers_of(Model(together=1), rows)
    assert len(answers) == 4
    assert problems
    assert score(Model(together=1), rows, [{"defect": "ok"}] * 4, tiny_resource()).unanswered == 4


def test_no_rows_are_asked_for_nothing() -> None:
    assert answers_of(Model(), []) == ([], ())


def test_rows_say_which_they_are_what_was_true_and_their_groups() -> None:
    events = events_frame(4).with_columns(label=labels_frame(events_frame(4))["value"])
    resource = tiny_resource(gates={"slices": [{"by": "station"}]})
    found = rows_of(events, [{"defect": "ok"}, {"defect": "scratch"}] * 2, resource)
    assert found.ids == ("e0", "e1", "e2", "e3")
    assert found.truths == ("ok", "scratch", "ok", "scratch")
    assert found.groups == {"station": ("station-0", "station-1", "station-2", "station-0")}
