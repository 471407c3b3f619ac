"""A first start on a machine that lacks something: what is missing is told, with what helps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.stack import kafka


def test_kafka_that_cannot_be_fetched_is_told_with_what_helps(tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:1")
    env = {**os.environ, **nowhere, "HOME": str(tmp_path), "TIDEMILL_STATE": str(tmp_path / "state")}
    command = [sys.executable, "-m", "tidemill.cli", "up", "--no-control"]
    up = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert up.returncode == 5
    assert "error: Kafka's jars could not be fetched from Maven Central" in up.stderr
    assert "hint: check the network, or set TIDEMILL_KAFKA" in up.stderr
    assert "Traceback" not in up.stderr
    doctor = subprocess.run([*command[:3], "doctor"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "not fetched yet" in doctor.stdout


@pytest.mark.parametrize("how", [[], ["--detach"]])
def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "file").touch()
    env = {**os.environ, "TIDEMILL_STATE": str(tmp_path / "file" / "state")}
    command = [sys.executable, "-m", "tidemill.cli", "up", *how]
    up = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert up.returncode == 2
    assert "cannot be made: Not a directory\nhint: TIDEMILL_STATE" in up.stderr


def test_what_was_fetched_is_found_again_without_asking_anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    jars = kafka.classpath()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the jars are known already")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert kafka.classpath() == jars
    assert any("kafka_2.13-4.2.0.jar" in jar for jar in jars)


def test_a_jar_that_is_gone_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = kafka._classpath_file()
    file.parent.mkdir(parents=True)
    jar = tmp_path / "a.jar"
    jar.touch()
    file.write_text(f"{jar}\n")
    assert kafka.stored_classpath() == (str(jar),)
    jar.unlink()
    assert kafka.stored_classpath() is None
