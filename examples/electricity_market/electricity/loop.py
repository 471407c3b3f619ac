"""Tidemill's own loop as a contestant, in event time: `decide` says when a run starts and what becomes of its version.

What is the product's: the decision with volume, cooldown and rollout (`tidemill.control.decide`), which rows are
labelled and mature, their split into new, replayed and fresh ones, the warm start, training, and the gate on the fresh
rows.

What is left out: Kafka, the lake and the counting in it (all are frames in memory), pipeline processes, the registry,
ONNX and the server (the torch module answers), and the watch. A run takes no event time: its version answers from the
next row on.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from electricity.model import Codec, Trainer
from electricity.rows import DELAY, EVENTS, HALF_HOUR_MS, LABELLED, Market
from tidemill.control.decide import decide, new_status
from tidemill.control.state import LoopStatus
from tidemill.control.turn import Observed
from tidemill.core.clock import from_ms, to_ms
from tidemill.evaluation.answering import classes_of, rows_of, score
from tidemill.evaluation.gates import GateVerdict, judge, may_pass
from tidemill.evaluation.scoring import Evaluation
from tidemill.events.records import Decision, Request
from tidemill.testing.traffic import MemoryTrafficDriver
from tidemill.training.dataset import Known, labelled, split
from tidemill.training.fit import fit
from tidemill.training.protocols import Answer, Row
from tidemill.training.weights import save_weights

__all__ = ["Loop", "Version"]


@dataclass(frozen=True)
class Version:
    """One version: it answers as the torch module does, and knows what its snapshot could see."""

    version: str
    module: Any
    weights: bytes
    known: Known

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row."""
        import torch

        codec = Codec()
        with torch.inference_mode():
            x = torch.from_numpy(codec.encode(rows)["x"])
            return codec.decode({name: value.numpy() for name, value in self.module(x).items()})


class Loop:
    """Retrains as the resource declares.

    Args:
        market: the rows; of its resource the triggers, the gates and the replay count.
        seed: added to that of each run, which is drawn from the run's name.
    """

    def __init__(self, market: Market, *, seed: int = 0) -> None:
        self.runs, self.seconds = 0, 0.0
        self.refused = 0
        """Runs whose version the gate refused."""
        self.decisions: list[Decision] = []
        self._market, self._seed, self._resource = market, seed, market.resource
        self._driver = MemoryTrafficDriver(ready_at_once=True)
        self._versions: dict[str, Version] = {}
        self._asked = 0

    def begin(self, row: int) -> None:
        """Make the first version, of the labels that are known before `row`."""
        self._status: LoopStatus = new_status(self._time(row - 1))
        self.tell(row - 1 - DELAY)
        self._serving = self._champion()
        self.runs = 0

    def tell(self, row: int) -> None:
        """The loop's turn; what it promotes answers from the next row on."""
        now = row + DELAY
        self._serving = self._champion()
        self._decide(now)
        if self._status.run is not None:
            self._run(now, self._status.run.run)

    def answer(self, row: int) -> str:
        """The champion's answer."""
        if self._serving is None:
            return "down"
        return str(self._serving.answers([self._market.rows[row]])[0]["class"])

    def _champion(self) -> Version | None:
        champion = self._status.champion
        return self._versions[champion.version] if champion else None

    def _decide(self, row: int, request: Request | None = None) -> Sequence[Decision]:
        observed = Observed(
            requests=(request,) if request else (),
            runs=(),
            traffic=self._driver.observe(),
            labelled=self._labelled(row),
        )
        self._status, said = decide(self._resource, self._status, observed, self._time(row))
        self._driver.apply(self._status.traffic)
        self.decisions.extend(said)
        return said

    def _labelled(self, row: int) -> int:
        """Labels that are known when `row` is answered, and were not when the champion's snapshot was taken."""
        champion = self._status.champion
        if champion is None or champion.data_until is None:
            return row - DELAY + 1
        return (self._market.times[row] - champion.data_until) // HALF_HOUR_MS

    def _run(self, row: int, run: str) -> None:
        """The steps of a run, from claim to propose."""
        self.runs += 1
        (grant,) = self._ask(row, "claim", run=run)
        champion = self._champion()
        candidate, evaluation = self._made(row, run, champion)
        verdicts = judge(self._resource.spec.gates, evaluation)
        token, gates = grant.figures["token"], _told(verdicts)
        if not may_pass(verdicts):
            self.refused += 1
            self._ask(row, "finished", run=run, token=token, gates=gates)
            return
        self._versions[run] = candidate
        self._ask(row, "propose", run=run, token=token, version=run, artifact=run, gates=gates)
        while self._status.rollout is not None:
            self._decide(row)
        kept = {one.version for one in (self._status.champion, self._status.previous) if one}
        self._versions = {name: version for name, version in self._versions.items() if name in kept}

    def _made(self, row: int, run: str, champion: Version | None) -> tuple[Version, Evaluation]:
        """Train on the run's snapshot, and let candidate and champion answer its fresh rows."""
        spec, as_of = self._resource.spec, self._market.times[row]
        seed = self._seed + int.from_bytes(hashlib.sha256(run.encode()).digest()[:4])
        seen = self._market.events.head(row + 1), self._market.labels.head(row - DELAY + 1)
        found = labelled(seen[0].lazy(), seen[1].lazy(), self._resource, as_of=as_of).rows
        before = champion.known if champion else None
        parts = split(found, fresh_rows=spec.gates.fresh.rows, known=before, seed=seed, replay=spec.model.replay)
        rows, labels = self._content(parts.filter(pl.col("part") != "fresh"))
        begun = time.process_time()
        weights = champion.weights if champion else None
        module = fit(Trainer(), Codec(), rows, labels, seed=seed % 2**31, weights=weights).module
        known = Known({str(EVENTS): row}, {str(LABELLED): row - DELAY}, as_of)
        candidate = Version(run, module, save_weights(module), known)
        self.seconds += time.process_time() - begun
        return candidate, self._judged(candidate, champion, parts.filter(pl.col("part") == "fresh"))

    def _judged(self, candidate: Version, champion: Version | None, fresh: pl.DataFrame) -> Evaluation:
        rows, labels = self._content(fresh)
        classes = classes_of(self._resource)
        return Evaluation(
            candidate=score(candidate, rows, labels, self._resource),
            champion=score(champion, rows, labels, self._resource) if champion else None,
            snapshot=candidate.version,
            kind=self._resource.spec.prediction.type,
            classes=classes.names if classes else (),
            rows=rows_of(fresh, labels, self._resource),
        )

    def _content(self, frame: pl.DataFrame) -> tuple[list[Row], list[Mapping[str, Any]]]:
        return [self._market.rows[number] for number in frame["offset"]], [json.loads(one) for one in frame["label"]]

    def _ask(self, row: int, kind: Any, **arguments: Any) -> Sequence[Decision]:
        self._asked += 1
        now = to_ms(self._time(row))
        name = f"request-{self._asked}"
        request = Request(
            request_id=name, kind=kind, model=self._resource.id, time=now, by="pipeline", arguments=arguments
        )
        return [one for one in self._decide(row, request) if one.answers == name]

    def _time(self, row: int) -> datetime:
        return from_ms(self._market.times[row])


def _told(verdicts: Sequence[GateVerdict]) -> str:
    return json.dumps([{"gate": one.gate, "passed": one.passed, "reason": one.reason} for one in verdicts])
