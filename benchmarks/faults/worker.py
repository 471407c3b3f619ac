"""The real worker, with a hand on what is around it: `python -m benchmarks.faults.worker OPTIONS --resource FILE`.

What is replaced lies outside the product: the Kafka client (how much a poll brings, how soon a dead member is
missed), and the call that commits to Delta (its answer may be lost after it succeeded). With `--fence-by-batch` the
product's own fences are broken, for the control that must fail. Then the CLI runs as ever.
"""

import argparse
import os
import random
import sys
from collections.abc import Callable
from typing import Any

import deltalake
import kafka

from tidemill.core.clock import SystemClock

__all__: list[str] = []

Write = Callable[..., None]


class Journal:
    """One line for each thing that the worker does, so that it is known where a kill met it: `<seconds> <what>`."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._clock = SystemClock()

    def note(self, what: str) -> None:
        """Append a line; it is in the file when this returns."""
        os.write(self._file, f"{self._clock.monotonic():.3f} {what}\n".encode())


def patched_consumer(journal: Journal, rng: random.Random, most: int, session_ms: int) -> type[Any]:
    """A consumer whose polls bring up to a random number of records."""

    class Consumer(kafka.KafkaConsumer):  # type: ignore[misc]
        def __init__(self, *topics: str, **config: Any) -> None:
            soon = {
                "session_timeout_ms": session_ms,
                "heartbeat_interval_ms": session_ms // 6,
                "metadata_max_age_ms": 2000,
            }
            super().__init__(*topics, **config | soon)

        def poll(self, timeout_ms: int = 0, max_records: int | None = None, **rest: Any) -> Any:
            few = rng.randint(1, most)
            return super().poll(timeout_ms, few if max_records is None else min(max_records, few), **rest)

        def commit(self, offsets: Any = None, timeout_ms: int | None = None) -> None:
            super().commit(offsets, timeout_ms)
            journal.note("commit " + ",".join(str(tp.partition) for tp in offsets))

    return Consumer


def forgetful(write: Write, journal: Journal, rng: random.Random, share: float) -> Write:
    """Delta's commit, whose answer is lost now and then."""

    def call(table: Any, *args: Any, **kwargs: Any) -> None:
        name = str(table.table_uri).rstrip("/").rpartition(".")[2]
        journal.note(f"begun {name}")
        write(table, *args, **kwargs)
        if rng.random() < share:
            journal.note(f"dropped {name}")
            raise OSError("the answer was dropped after the commit had succeeded")
        journal.note(f"taken {name}")

    return call


def main(arguments: list[str]) -> None:
    """Replace what was asked for, and run the CLI."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--poll", type=int, required=True, help="most records of a poll")
    parser.add_argument("--session-ms", type=int, required=True)
    parser.add_argument("--drop", type=float, required=True, help="share of Delta's answers that are lost")
    parser.add_argument("--fence-by-batch", action="store_true")
    parser.add_argument("--resource", required=True)
    asked = parser.parse_args(arguments)
    journal, rng = Journal(asked.journal), random.Random(asked.seed)
    # Before the product imports them.
    kafka.KafkaConsumer = patched_consumer(journal, rng, asked.poll, asked.session_ms)
    deltalake.write_deltalake = forgetful(deltalake.write_deltalake, journal, rng, asked.drop)
    from tidemill.cli import main as run_cli
    from tidemill.features import online

    online._REBUILD_MS = 2 * asked.session_ms  # when who fills the rows is believed dead
    if asked.fence_by_batch:
        from benchmarks.faults.wrong_fence import fence_by_batch

        fence_by_batch()
    sys.argv = ["tidemill", "ingest", "--resource", asked.resource]
    run_cli()


if __name__ == "__main__":
    main(sys.argv[1:])
