"""`tidemill slices` and `tidemill quality` from the command line, on a lake in a folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.outcomes.test_estimated import history, lake_of
from tests.outcomes.test_quality import resource_of as quality_resource
from tests.outcomes.test_slices import resource_of, with_features, worse_in_the_dark

from tidemill.cli import main
from tidemill.control.store import LocalResourceStore
from tidemill.core.settings import load_settings
from tidemill.spec.model import ContinualModel


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(*arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def stored(folder: Path, monkeypatch: pytest.MonkeyPatch, resource: ContinualModel) -> Path:
    """The folder of its lake, in an installation of which it is the only model."""
    monkeypatch.chdir(folder)
    LocalResourceStore(folder / ".tidemill" / "resources").put(resource, code=str(folder))
    return Path(load_settings()[0].lake_uri)


def test_slices_for_people_and_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = resource_of(slices=("station",))
    with_features(stored(tmp_path, monkeypatch, resource), resource, worse_in_the_dark(3000))
    status, out, _ = call(capsys, "slices", "phone-inspection")
    assert status == 0
    assert "v1: 3,000 outcomes, 3,000 labels that count" in out
    assert "gap from south to north: 0." in out
    assert "brightness < 0." in out
    assert "station=north" in out
    _, out, _ = call(capsys, "slices", "phone-inspection", "-o", "json")
    found: dict[str, Any] = json.loads(out)
    assert found["slices"]["found"][0]["p"] <= 0.05
    _, out, _ = call(capsys, "slices", "phone-inspection", "--fairness")
    assert "demographic parity: gap" in out
    assert "P(answer | true)" in out
    _, out, _ = call(capsys, "slices", "phone-inspection", "--version", "v9")
    assert out.strip() == "no prediction has come of age yet"
    status, _, err = call(capsys, "slices", "phone-inspection", "--fairness", "--positive", "dent")
    assert status != 0
    assert "dent is no class" in err


def test_quality_has_the_estimate_beside_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = quality_resource()
    lake_of(stored(tmp_path, monkeypatch, resource), resource, *history())
    _, out, _ = call(capsys, "quality", "phone-inspection")
    assert "estimated (no labels yet): v1, " in out
    assert "nothing decides by it" in out
    _, out, _ = call(capsys, "quality", "phone-inspection", "-o", "json")
    assert json.loads(out)["estimated"]["windows"] == 19
