"""What may be missing is taken from the rows, and a candidate that bears it worse than the champion is refused."""

import numpy as np
import pytest

from tidemill.evaluation.gates import judge
from tidemill.evaluation.robustness import stressed
from tidemill.evaluation.scoring import Evaluation, Scores, Stress
from tidemill.spec.gates import Gates
from tidemill.testing.serving import served_resource
from tidemill.training.verdict import GateVerdict

ROWS = 500
PLAIN = (0.0,) * ROWS
GATES = Gates.model_validate({"robustness": {"margin": 0.05}})


def lost(share: float) -> tuple[float, ...]:
    return tuple(float(place < share * ROWS) for place in range(ROWS))


def verdict(*stresses: Stress, champion: bool = True, plain: tuple[float, ...] = PLAIN) -> GateVerdict:
    found = Evaluation(
        candidate=Scores(version="v2", losses=plain),
        champion=Scores(version="v1", losses=plain) if champion else None,
        snapshot="",
        stresses=stresses,
    )
    return judge(GATES, found)[-1]


def test_rows_lose_what_they_may_lack_and_nothing_else() -> None:
    resource = served_resource()
    row = {"image": b"", "exposure_ms": 1.0, "shift": 2, "note": None, "flash": True, "brightness": 0.5}
    row |= dict.fromkeys(resource.spec.features.window_names, 3.0)
    found = dict(stressed([row, row | {"shift": None}], resource))
    assert list(found) == ["without shift", "without flash", "without the features of the store"]
    assert found["without shift"] == [row | {"shift": None}] * 2
    windows = dict.fromkeys(resource.spec.features.window_names)
    assert found["without the features of the store"][0] == row | windows


def test_a_candidate_that_bears_it_as_the_champion_does_passes() -> None:
    found = verdict(Stress(name="without shift", candidate=lost(0.3), champion=lost(0.3)))
    assert found.passed is True
    assert found.figures["rise.without shift"] == pytest.approx(0.3)


def test_a_candidate_that_fails_without_a_field_is_refused_by_its_name() -> None:
    found = verdict(
        Stress(name="without shift", candidate=lost(0.02), champion=lost(0.02)),
        Stress(name="without flash", candidate=lost(0.4), champion=lost(0.1)),
    )
    assert found.passed is False
    assert found.reason.startswith("without flash the error rises by +0.400 against the champion's +0.100, by up to ")
    assert "without shift" not in found.reason


def test_it_is_the_rise_that_counts_and_not_the_error() -> None:
    plain = lost(0.3)
    found = verdict(Stress(name="without shift", candidate=plain, champion=plain), plain=plain)
    assert found.passed is True
    assert found.figures["rise.without shift"] == 0


def test_a_candidate_that_is_as_much_worse_as_the_margin_passes_in_at_most_5_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(100):
        candidate = tuple((rng.random(ROWS) < 0.05).astype(float).tolist())
        passed += verdict(Stress(name="without shift", candidate=candidate, champion=PLAIN)).passed is True
    assert passed <= 5


def test_without_a_champion_or_anything_that_may_be_missing_it_is_not_applicable() -> None:
    assert verdict(Stress(name="without shift", candidate=lost(0.5)), champion=False).passed is None
    assert verdict().reason == "no input of the fresh rows may be missing: not applicable"
