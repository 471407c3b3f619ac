"""The clock, ids, errors, files and logs that everything stands on."""

import inspect
import json
import os
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import errors
from tidemill.core.clock import SystemClock, from_ms, to_ms
from tidemill.core.errors import Permanent, Problem, SpecError, TidemillError, Transient
from tidemill.core.files import is_locked, try_lock, write_atomically
from tidemill.core.ids import deterministic_id, model_id, new_id
from tidemill.core.settings import Settings
from tidemill.core.telemetry import get_logger, setup_logging

# hypothesis wants its bounds without a zone
moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(moments)
def test_milliseconds_and_back_lose_less_than_one(moment: datetime) -> None:
    assert abs(from_ms(to_ms(moment)) - moment) <= timedelta(milliseconds=0.5)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        to_ms(datetime(2026, 1, 1))  # noqa: DTZ001
    east = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert to_ms(east) == to_ms(datetime(2026, 1, 1, tzinfo=UTC))


def test_a_durations_milliseconds_are_its_length() -> None:
    assert to_ms(timedelta(hours=1, milliseconds=1.6)) == 3_600_002
    assert to_ms(timedelta(0)) == 0


def test_the_system_clock_is_aware_and_only_grows() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    clock.sleep(0)
    assert clock.monotonic() >= before
    assert clock.now().tzinfo is UTC


@given(moments, moments)
def test_ids_sort_by_time_and_differ(first: datetime, second: datetime) -> None:
    one, two = new_id(first), new_id(second)
    assert one != two
    assert one[14] == "7"
    if to_ms(first) < to_ms(second):
        assert one < two


def test_a_derived_id_depends_on_each_part_and_on_where_it_ends() -> None:
    assert deterministic_id("a", 1) == deterministic_id("a", 1)
    assert len({deterministic_id("a", "bc"), deterministic_id("ab", "c"), deterministic_id("abc")}) == 3
    assert model_id("default", "phone") == "default.phone"


def test_whether_to_try_again_is_a_type_of_every_error() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if inspect.isclass(kind) and issubclass(kind, TidemillError) and kind is not TidemillError:
            assert issubclass(kind, Permanent) != issubclass(kind, Transient), name
            assert kind.exit_code != 0


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.split("─ ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "─ " in line}
    assert drawn == set(errors.__all__) - {"TidemillError", "Problem"}


def test_one_problem_is_one_line_and_many_are_counted() -> None:
    one = Problem("m.yaml", 3, "spec.events", "is required")
    assert str(SpecError.of((one,))) == "m.yaml:3: spec.events: is required"
    two = SpecError.of((one, Problem("m.yaml", None, "", "is odd")))
    assert str(two) == "m.yaml has 2 problems\n  m.yaml:3: spec.events: is required\n  m.yaml: is odd"
    assert two.problems[0] == one


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write_atomically(file, "a" * 100_000)
    over, seen = threading.Event(), set[str]()

    def read() -> None:
        while not over.is_set():
            text = file.read_text()
            seen.add(f"{text[0]}{len(set(text))}{len(text)}")

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        write_atomically(file, "ab"[turn % 2] * 100_000, durable=turn % 50 == 0)
    over.set()
    reader.join()
    assert seen <= {"a1100000", "b1100000"}
    assert os.listdir(tmp_path) == ["f"]  # noqa: PTH208 - hidden files too


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "f", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_lock_is_seen_by_others_and_ends_with_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    assert not is_locked(path)
    assert try_lock(descriptor)
    assert is_locked(path)
    os.close(descriptor)
    assert not is_locked(path)


def test_logs_are_json_for_programs_and_carry_role_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(Settings(log_format="json", log_level="info"), "ingest")
    log = get_logger("tidemill.somewhere")
    log.debug("not shown")
    log.info("shown", count=3)
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert {
        "event": "shown",
        "count": 3,
        "role": "ingest",
        "level": "info",
        "source": "tidemill.somewhere",
    }.items() <= (told.items())
