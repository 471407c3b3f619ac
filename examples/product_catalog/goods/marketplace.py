"""The marketplace on a clock that is turned by hand: listings, answers, labels and outcomes, and the loop that decides.

What is real: the loop (`tidemill.control`), the lake and what is counted in it, snapshots, training, gates, artifacts,
the figures of agreement, and the versions that answer. What stands in for a running stack: the log, the registry and
the traffic are in memory (`tidemill.testing`), and a run's steps are called one by one, while nothing is listed.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tidemill.artifacts import local_folder
from tidemill.control.labelled import LabelledCount, NewClassCount
from tidemill.control.protocols import RunSeen
from tidemill.control.state import LoopStatus, Version
from tidemill.control.tick import Loop, Parts
from tidemill.core.clock import from_ms, to_ms
from tidemill.evaluation.gates import judge, may_pass
from tidemill.events.records import Decision, Outcome, Request
from tidemill.metrics.losses import error
from tidemill.outcomes.agreement import EVERY, figures
from tidemill.outcomes.conflict import rule_of, winner
from tidemill.retrain import data, lineage, version
from tidemill.retrain.grant import claim, propose, tell_refused
from tidemill.retrain.place import Place
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock
from tidemill.testing.log import MemoryLog
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.store import MemoryResourceStore
from tidemill.testing.traffic import MemoryTrafficDriver
from tidemill.training.predictor import OnnxModel

from .desks import Desks
from .ledger import Ledger
from .products import Product, draw

__all__ = ["PER_TURN", "TURN_S", "Marketplace"]

TURN_S = 15
PER_TURN = 15
"""Products listed in a turn: one a second."""
_SETTLED = timedelta(seconds=15)
"""As long the outcomes worker waits for the labels of a period."""

Row = Mapping[str, Any]


class Marketplace:
    """One marketplace. Call `turn` for each quarter of a minute.

    Args:
        folder: where lake and versions are kept.
        resource: the model; its code must be importable.
        seed: of products, desks and requests.
        start: when the day begins.
        on_decision: told each decision, once, and when.
    """

    def __init__(
        self,
        folder: Path,
        resource: ContinualModel,
        *,
        seed: int,
        start: datetime,
        on_decision: Callable[[datetime, Decision], None],
    ) -> None:
        self.resource, self.clock = resource, ManualClock(start)
        self.lake, self._root = str(folder / "lake"), str(folder / "artifacts")
        self.shares: dict[str, float] = {}
        self.enough: dict[str, datetime] = {}
        """By new class: when `minExamples` were first counted."""
        self.run_seconds: dict[str, float] = {}
        self._on_decision, self._told = on_decision, 0
        self._rng = np.random.default_rng(seed)
        self.desks, self._ledger = Desks(self._rng), Ledger(self.lake, resource)
        self._log, self._registry = MemoryLog(), MemoryRegistry(self.clock)
        self._driver, self._runner = MemoryTrafficDriver(ready_at_once=True), ScriptedRunner()
        self._store = MemoryResourceStore()
        self._store.put(resource)
        self._count = NewClassCount(self.lake, lambda: resource, self.clock)
        labelled = LabelledCount(self.lake, lambda: resource, self.clock)
        parts = Parts(self._log, self._runner, self._driver, self._registry, labelled, new_classes=self._counted)
        self._loop = Loop(resource.id, self._store, parts, self.clock)
        self._serving: dict[str, OnnxModel] = {}
        self._listed: dict[str, Product] = {}
        self._waiting: list[tuple[datetime, str, str, str]] = []
        self._unjudged: list[tuple[datetime, str, str, Row]] = []
        self._period = self._last_period()
        self.status: LoopStatus = self._tick()

    def archive(self, count: int, shares: Mapping[str, float]) -> None:
        """Enter products of the days before, each labelled by one person, a second apart up to now."""
        begin = self.clock.now() - timedelta(seconds=count + 60)
        for number, product in enumerate(draw(self._rng, count, shares)):
            at = begin + timedelta(seconds=number)
            self._ledger.event(f"old-{number}", product, at)
            self._ledger.label(f"old-{number}", product, "archive", product.kind, at)
        self._ledger.flush()

    def relabel(self, kind: str) -> int:
        """The desk that did not know a kind labels anew what it had wrong; how many labels that are."""
        desk, taken_for = self.desks.agree(kind)
        wrong = [
            name
            for name, product in self._listed.items()
            if product.kind == kind and any(one.labeller == desk for one in self._ledger.heard.get(name, ()))
        ]
        self._waiting = [
            (due, name, who, kind if (who, said) == (desk, taken_for) and self._listed[name].kind == kind else said)
            for due, name, who, said in self._waiting
        ]
        for name in wrong:
            self._ledger.label(name, self._listed[name], desk, kind, self.clock.now())
        return len(wrong)

    def turn(self) -> LoopStatus:
        """Products are listed, answered and labelled; what is due is judged; the loop ticks, and a run is run."""
        self._list(draw(self._rng, PER_TURN, self.shares))
        self.clock.advance(TURN_S)
        self._label_due()
        self._judge_due()
        self._ledger.flush()
        self._tell_agreement()
        self._tick()
        for seen in self._runner.observe():
            if seen.state == "pending":
                self._run(seen.run)
        return self.status

    @property
    def listed(self) -> int:
        """Products so far, without the archive."""
        return len(self._listed)

    def model(self, name: str) -> OnnxModel:
        """The version that answers under this name."""
        return self._serving[name]

    def _list(self, products: Iterable[Product]) -> None:
        now = self.clock.now()
        shares = {seen.version: seen.share for seen in self._driver.observe().revisions if seen.share}
        for product in products:
            name = f"product-{len(self._listed)}"
            self._listed[name] = product
            self._ledger.event(name, product, now)
            confidence = 1.0
            if shares:
                weights = np.array(list(shares.values()), float)
                chosen = str(self._rng.choice(list(shares), p=weights / weights.sum()))
                (answer,) = self._answering(chosen).answers([_row(product)])
                self._ledger.prediction(name, product, chosen, answer, now)
                self._unjudged.append((now, name, chosen, answer))
                confidence = answer["confidence"]
            for word in self.desks.label(product, confidence):
                due = now + timedelta(seconds=float(self._rng.uniform(5, 20)))
                self._waiting.append((due, name, word.desk, word.kind))

    def _answering(self, name: str) -> OnnxModel:
        if name not in self._serving:
            places = (self.status.champion, self.status.candidate, self.status.previous)
            (found,) = {one.artifact for one in places if one is not None and one.version == name}
            self._serving[name] = OnnxModel(local_folder(found))
        return self._serving[name]

    def _label_due(self) -> None:
        now = self.clock.now()
        due = sorted(one for one in self._waiting if one[0] <= now)
        self._waiting = [one for one in self._waiting if one[0] > now]
        for at, name, desk, kind in due:
            self._ledger.label(name, self._listed[name], desk, kind, at)

    def _judge_due(self) -> None:
        """Outcomes of what is mature, by the label that counts, as the worker judges them."""
        spec, now = self.resource.spec, self.clock.now()
        after, rule = spec.labels.maturity.after, rule_of(spec.labels)
        due = [one for one in self._unjudged if one[0] + after <= now]
        self._unjudged = [one for one in self._unjudged if one[0] + after > now]
        for at, name, answered_by, answer in due:
            counts, _ = winner(self._ledger.heard.get(name, []), rule)
            label = counts.value if counts else None
            outcome = Outcome(
                prediction_id=f"p-{name}",
                version=answered_by,
                entity=self._listed[name].seller,
                event_id=name,
                predicted_at=to_ms(at),
                eligible_at=to_ms(at + after),
                output=dict(answer),
                label=label,
                label_age_ms=counts.available_at - to_ms(at) if counts else None,
                loss=None if label is None else error(spec.prediction, spec.labels.fields, answer, label),
            )
            self._log.judged.append(outcome)

    def _last_period(self) -> int:
        return to_ms(self.clock.now() - _SETTLED) // to_ms(EVERY)

    def _tell_agreement(self) -> None:
        """Once a period, as the outcomes worker does."""
        if (period := self._last_period()) != self._period:
            self._period = period
            through = from_ms(period * to_ms(EVERY))
            self._log.judged.append(figures(self.resource, self.lake, through))

    def _counted(self, champion: Version) -> Mapping[str, int]:
        found, wanted = self._count(champion), self.resource.spec.triggers.new_class
        for kind, count in found.items():
            if wanted is not None and count >= wanted.min_examples:
                self.enough.setdefault(kind, self.clock.now())
        return found

    def _tick(self) -> LoopStatus:
        self.status = self._loop.tick()
        decisions = self._log.decisions()
        for one in decisions[self._told :]:
            self._on_decision(self.clock.now(), one)
        self._told = len(decisions)
        return self.status

    def _run(self, run: str) -> None:
        """The steps of the pipeline, from claim to propose; the clock goes on by what they take."""
        self._runner.show(RunSeen(run=run, state="running"))
        place = Place(self.resource, self.lake, self._root, self.clock, self._ask, lambda: self._registry)
        begun = perf_counter()
        with redirect_stdout(io.StringIO()):
            grant = claim(place, run, reason="", force=False, skip_gates=False)
            if grant is not None:
                taken = data.snapshot(place, grant)
                data.validate(place, taken)
                version.train(place, grant, taken)
                evaluation = version.evaluate(place, grant, taken)
                verdicts = judge(self.resource.spec.gates, evaluation)
                self.run_seconds[run] = perf_counter() - begun
                self.clock.advance(self.run_seconds[run])
                if may_pass(verdicts):
                    artifact = lineage.register(place, grant, taken.record, evaluation, verdicts)
                    propose(place, grant, artifact, verdicts)
                else:
                    tell_refused(place, grant, verdicts)
        self._runner.show(RunSeen(run=run, state="succeeded"))

    def _ask(self, request: Request, deadline_s: float) -> Decision:
        self._log.asked.append(request)
        self._tick()
        (answer,) = [one for one in self._log.decisions() if one.answers == request.request_id]
        return answer


def _row(product: Product) -> Row:
    return {"title": product.title, "price": product.price, "grams": product.grams}
