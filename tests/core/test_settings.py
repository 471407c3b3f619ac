"""Where a setting comes from, and which place wins."""

import json
import os
from pathlib import Path

import pytest

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.files import try_lock
from tidemill.core.settings import Settings, environment, load_settings, masked


def stack(state: Path, **settings: str) -> Path:
    state.mkdir(parents=True, exist_ok=True)
    file = state / "stack.json"
    file.write_text(json.dumps({"pid": os.getpid(), "settings": settings}))
    return file


def test_without_anything_said_all_is_default(tmp_path: Path) -> None:
    settings, origins = load_settings({}, tmp_path)
    assert set(origins.values()) == {"default"}
    assert settings.state == tmp_path / ".tidemill"
    assert settings.lake_uri == str(tmp_path / ".tidemill/lake")
    assert settings.mlflow_uri == f"sqlite:///{tmp_path / '.tidemill/mlflow.db'}"


def test_environment_beats_file_beats_running_stack(tmp_path: Path) -> None:
    file = stack(tmp_path / ".tidemill", kafka="stack:1", redis="redis://stack", endpoint="http://stack")
    (tmp_path / "tidemill.toml").write_text('kafka = "file:1"\nredis = "redis://file"\n')
    settings, origins = load_settings({"TIDEMILL_KAFKA": "env:1"}, tmp_path)
    assert (settings.kafka, origins["kafka"]) == ("env:1", "environment")
    assert (settings.redis, origins["redis"]) == ("redis://file", str(tmp_path / "tidemill.toml"))
    assert (settings.endpoint, origins["endpoint"]) == ("http://stack", str(file))


def test_a_feast_repository_is_a_folder_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "tidemill.toml").write_text('feast_repo = "features"\n')
    (tmp_path / "inner").mkdir()
    assert load_settings({}, tmp_path / "inner")[0].feast_repo == tmp_path / "features"
    said = load_settings({"TIDEMILL_FEAST_REPO": "here"}, tmp_path / "inner")[0]
    assert said.feast_repo == tmp_path / "inner" / "here"
    assert environment(said)["TIDEMILL_FEAST_REPO"] == str(said.feast_repo)


def test_the_nearest_file_above_the_working_folder_counts_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "tidemill.toml").write_text('state = "here"\n')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert load_settings({}, inner)[0].state == tmp_path / "here"
    assert load_settings({"TIDEMILL_STATE": "there"}, inner)[0].state == inner / "there"


def test_a_stack_that_was_killed_is_not_believed(tmp_path: Path) -> None:
    stack(tmp_path / ".tidemill", kafka="stack:1")
    lock = os.open(tmp_path / ".tidemill/up.lock", os.O_RDWR | os.O_CREAT)
    try:
        assert load_settings({}, tmp_path)[0].kafka is None
        assert try_lock(lock)
        assert load_settings({}, tmp_path)[0].kafka == "stack:1"
    finally:
        os.close(lock)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("kafka = ", r"tidemill\.toml is not valid TOML"),
        ("kafkaa = 'x'", r"setting kafkaa from .*tidemill\.toml: Extra inputs"),
        ("log_level = 'loud'", r"setting log_level from .*tidemill\.toml: Input should be 'debug'"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(tmp_path: Path, file: str, told: str) -> None:
    (tmp_path / "tidemill.toml").write_text(file)
    with pytest.raises(InvalidInput, match=told):
        load_settings({}, tmp_path)


def test_a_broken_stack_file_is_told(tmp_path: Path) -> None:
    stack(tmp_path / ".tidemill").write_text("{")
    with pytest.raises(InvalidInput, match=r"stack\.json cannot be read") as caught:
        load_settings({}, tmp_path)
    assert caught.value.hint == "run `tidemill down`, then `tidemill up`"


def test_what_is_needed_and_unknown_is_told_with_what_helps(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    with pytest.raises(Unavailable, match="no kafka is known") as caught:
        settings.require_kafka()
    assert caught.value.hint == "start one with `tidemill up`, or set TIDEMILL_KAFKA"
    assert Settings(redis="redis://x").require_redis() == "redis://x"


def test_a_child_finds_the_same_settings_wherever_it_runs(tmp_path: Path) -> None:
    settings, _ = load_settings({"TIDEMILL_KAFKA": "k:1", "TIDEMILL_STATE": "s"}, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert load_settings(environment(settings), elsewhere)[0] == settings


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://user:secret@host:1/0", "redis://user:***@host:1/0"),
        ("redis://:secret@host:1/0", "redis://:***@host:1/0"),
        ("postgresql+psycopg://u:p@h/db", "postgresql+psycopg://u:***@h/db"),
        ("redis://:p/w@host:1/0", "redis://:***@host:1/0"),
        ("redis://host:1/0?db=1&password=secret", "redis://host:1/0?db=1&password=***"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
        (Path("state"), "state"),
    ],
)
def test_a_password_is_never_shown(value: object, shown: str) -> None:
    assert masked(value) == shown
