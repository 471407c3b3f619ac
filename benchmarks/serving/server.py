"""`tidemill serve` as it is, but for what a run changes on purpose: what may wait, and how often it speaks, if at all.

python -m benchmarks.serving.server RESOURCE ARTIFACT PORT [options]
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tidemill.core.clock import SystemClock
from tidemill.serving import log, server
from tidemill.spec.load import load

__all__ = ["VERSION"]

VERSION = "v1"


class Unlogged:
    """No prediction log at all, for what it costs."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take whatever the real one takes."""

    def put(self, predictions: Any) -> None:
        """Forget them."""

    def close(self) -> None:
        """Nothing is held."""


class Mute(log.PredictionLog):
    """A log that never says how far it is: the control."""

    def _say(self, writer: log.PredictionWriter) -> None:
        self._said_at = self._clock.monotonic()


def main(arguments: list[str]) -> None:
    """Replace what was asked for, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("resource", type=Path)
    parser.add_argument("artifact")
    parser.add_argument("port", type=int)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--redis", default="redis://127.0.0.1:1/0")
    parser.add_argument("--counts", type=Path)
    parser.add_argument("--capacity", type=int, default=log.CAPACITY)
    parser.add_argument("--every", type=float, default=log.EVERY_S)
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--unlogged", action="store_true")
    asked = parser.parse_args(arguments)
    log.EVERY_S = asked.every
    kind: Any = Mute if asked.mute else log.PredictionLog
    made = Unlogged if asked.unlogged else partial(kind, capacity=asked.capacity)
    vars(server)["PredictionLog"] = made
    server.run(
        load(asked.resource),
        version=VERSION,
        artifact=asked.artifact,
        port=asked.port,
        kafka=asked.kafka,
        redis=asked.redis,
        clock=SystemClock(),
        counts=asked.counts,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
