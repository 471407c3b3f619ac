"""The command `demo`: what it refuses before it starts anything."""

import json
from pathlib import Path

import pytest

from tidemill.cli import demo as command
from tidemill.cli import main
from tidemill.core.errors import NotFound


def test_without_the_example_it_says_where_the_demo_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "__file__", str(tmp_path / "platform" / "tidemill" / "cli" / "demo.py"))
    with pytest.raises(NotFound, match="phone_inspection") as raised:
        command.example_folder()
    assert "clone" in str(raised.value.hint)


def test_servers_of_ones_own_are_refused_with_the_place_that_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_KAFKA", "broker:9092")
    with pytest.raises(SystemExit) as raised:
        main("demo")
    assert raised.value.code == 4
    said = capsys.readouterr().err
    assert "kafka is set" in said
    assert "environment" in said


def test_the_example_of_this_checkout_is_found(example: Path) -> None:
    assert command.example_folder() == example
    assert json.dumps(str(command.example_folder()))
