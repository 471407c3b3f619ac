"""The acts of the demo's story. They start what `tidemill up` starts, apply the resource, and run a factory.

All else is the loop: the acts read what the loop decides and what is seen of it, and wait. Each wait has a deadline.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tidemill.control.provision import topics_of
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import DeadlineExceeded, Permanent
from tidemill.core.settings import Settings
from tidemill.spec.load import load
from tidemill.stack.running import start_detached, stop
from tidemill.wiring import local

from .books import close_books
from .commands import run_command
from .factory import Factory, draw_history, draw_returned
from .figures import Moments
from .live import Screen
from .observer import Observer
from .recording import Recording
from .render import CHANGED, Picture
from .result import Result, make_result

__all__ = ["HISTORY_PER_SECOND", "SIZES", "Acts", "Options", "Size"]

RESOURCE = Path(__file__).parents[1] / "model.yaml"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    history: int
    """Labelled pictures of earlier: more than the first run waits for."""
    per_second: float
    """Pictures of all stations on the line."""
    before_s: float
    """How long the line runs before the light changes."""
    stationary_s: float
    """How long it runs where the light does not change."""
    returned: int
    """Wrongly labelled pictures of the second act."""


SIZES = {
    "full": Size(history=7200, per_second=40, before_s=20, stationary_s=90, returned=2400),
    "small": Size(history=6300, per_second=36, before_s=12, stationary_s=40, returned=2000),
}
HISTORY_PER_SECOND = 18.0
"""Six pictures a station and second, so that 6,000 of them are 1,000 votes of the drift reference."""


@dataclass(frozen=True)
class Options:
    """What the command was asked for."""

    drift: bool = True
    seed: int = 1
    size: str = "full"
    keep: bool = False
    folder: Path = Path(".tidemill/demo")


@dataclass
class Acts:
    """One telling of the story; the fields fill up as it goes on."""

    options: Options
    settings: Settings
    screen: Screen
    clock: Clock
    recording: Recording = field(default_factory=Recording)
    factory: Factory | None = None
    observer: Observer | None = None
    returned: Future[list[Picture]] = field(init=False)
    """The pictures of the second act, drawn while the first version is trained."""

    def __post_init__(self) -> None:
        self.size = SIZES[self.options.size]
        self.moments = Moments(started=self.now())
        self.resource = load(RESOURCE)
        self.machine = local(self.settings, clock=self.clock)

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return to_ms(self.clock.now())

    def bring_up(self) -> None:
        """The stack, and the resource; meanwhile the pictures of earlier days are drawn."""
        self.screen.stage("the stack starts", "tidemill up --detach")
        painter = ThreadPoolExecutor(1, "painter")
        history = painter.submit(draw_history, self.options.seed, self.size.history)
        self.returned = painter.submit(draw_returned, self.options.seed, self.size.returned, CHANGED)
        painter.shutdown(wait=False)
        stack = start_detached(self.settings, clock=self.clock)
        self.settings = self.settings.model_copy(update=dict(stack.settings))
        self.machine = local(self.settings, clock=self.clock)
        self.moments.stack_ready = self.now()
        self._command("apply", "-f", str(RESOURCE))
        self.observer = Observer(self.machine, topics_of(self.resource), self.recording, self.clock, stack.pid)
        self.observer.start()
        self.screen.stage("history is entered", f"{self.size.history:,} labelled pictures of earlier")
        drawn = history.result()
        self.factory = self._new_factory()
        self.wait("the model's topics", lambda: self._observer().sees_log, 60)
        self.factory.archive(drawn, per_second=HISTORY_PER_SECOND, until_ms=self.now() - 2000, name="history")
        self.moments.history_sent = self.now()

    def first_version(self) -> None:
        """There is no model: labelled events make the first dataset; version 1 is trained and serves."""
        self.screen.stage("the first version is trained", "no model yet: labelled events make the first dataset")
        self.wait("the first version to serve", lambda: bool(self.recording.decided("promote")), 240)
        self.moments.serving = self.now()
        self.recording.sample("before", self.moments.serving)
        self._line().start()
        self.screen.stage("the line runs", "each picture is answered through the endpoint; labels come later")

    def stationary(self) -> None:
        """Nothing changes, and nothing is to happen."""
        self._let_pass(self.size.stationary_s)

    def new_light(self) -> None:
        """Act one: the light changes; all that follows is the loop's doing."""
        self._let_pass(self.size.before_s)
        self._line().light = CHANGED
        changed = self.moments.light_changed = self.now()
        self.recording.sample("drifted", changed + 200)  # what is on the line now was drawn in the old light
        self.screen.stage("the light changes", "darker, warmer, with a glare")
        decided = self.recording.decided
        self.wait(
            "a drift signal",
            lambda: any(one.kind == "drift" and at >= changed for at, one in self.recording.signals),
            90,
        )
        self.screen.stage("drift", self.recording.signals[-1][1].message)
        self.wait("a run because of drift", lambda: bool(decided("start-run", after=changed)), 60)
        self.screen.stage("a retrain, because of drift", decided("start-run", after=changed)[-1].reason)
        self.wait("the candidate's rollout", lambda: bool(decided("start-rollout", after=changed)), 400)
        self.screen.stage("the candidate is rolled out", decided("start-rollout", after=changed)[-1].reason)
        self.wait("its promotion", lambda: bool(decided("promote", after=changed)), 400)
        self.recording.sample("after", self.now())
        self.screen.stage("promoted", decided("promote", after=changed)[-1].reason)

    def bad_candidate(self) -> None:
        """Act two: a candidate trained on corrupted labels is forced past its gates."""
        pictures = self.returned.result()
        self._line().archive(pictures, per_second=120.0, until_ms=self.now() - 1000, name="returned")
        self.moments.returned_sent = self.now()
        self.screen.stage(
            "second act: wrong labels", f"{len(pictures):,} returned phones, all scratched, are entered as ok"
        )
        # A run learns from what is mature: asked for at once, it would not see them.
        self._let_pass(self.resource.spec.labels.maturity.after.total_seconds() + 1)
        reason = "returned phones were entered"
        asked = self._ask_for_run("--reason", reason, "--skip-gates")
        decided = self.recording.decided
        self.screen.stage("a candidate is forced past its gates", "tidemill retrain phone-inspection --skip-gates")
        self.wait("the bad candidate's rollout", lambda: bool(decided("start-rollout", after=asked)), 400, since=asked)
        self.wait(
            "its verdict",
            lambda: bool(decided("rolled-back", "promote", after=asked)),
            200,
            since=asked,
            good_if_rolled_back=True,
        )
        self.screen.stage("rolled back", decided("rolled-back", "promote", after=asked)[-1].reason)

    def close(self) -> Result:
        """Stop the line, see that nothing is lost, end the stack."""
        line = self._line()
        self.moments.line_stopped = self.now()
        self.screen.stage("the line stops", "the last labels come; what was sent is counted")
        line.stop()
        counts, answered = line.counts, self.recording.prediction_ids
        books = close_books(self.machine, self.resource, answered, counts, self.clock, self._show)
        self._observer().stop()
        self.end_stack()
        self.moments.ended = self.now()
        return make_result(
            self.recording,
            self.moments,
            books,
            counts,
            seed=self.options.seed,
            size=self.options.size,
            sizes=asdict(self.size),
            drift_expected=self.options.drift,
            disk_bytes=sum(file.stat().st_size for file in self.settings.state.rglob("*") if file.is_file()),
        )

    def end_stack(self) -> None:
        """`tidemill down`, unless it is to be kept."""
        if not self.options.keep:
            stop(self.settings.state, clock=self.clock)

    def abandon(self) -> None:
        """Something went wrong, or somebody does not want to wait: leave nothing running."""
        if self.factory is not None:
            self.factory.stop(finish=False)
        if self.observer is not None:
            self.observer.stop()
        self.end_stack()

    def _ask_for_run(self, *arguments: str) -> int:
        """`tidemill retrain`, again once another run is over where one goes on; when it was taken (milliseconds).

        On a slow machine the line has by now made enough labels to start a run by themselves.
        """
        end = self.clock.monotonic() + 180
        while True:
            asked = self.now()
            try:
                self._command("retrain", "phone-inspection", *arguments)
            except Permanent as refusal:
                busy = any(words in refusal.message for words in ("already running", "a rollout is under way"))
                if not busy or self.clock.monotonic() > end:
                    raise
                self._let_pass(2)
            else:
                return asked

    def wait(
        self,
        what: str,
        condition: Callable[[], bool],
        deadline_s: float,
        *,
        since: int = 0,
        good_if_rolled_back: bool = False,
    ) -> None:
        """Return once the condition holds.

        Raises `DeadlineExceeded`, or `Permanent` once a run or rollout `since` then has failed, so that it never will.
        """
        end = self.clock.monotonic() + deadline_s
        while not condition():
            self._show()
            failures = ("run-failed", "run-finished") + (() if good_if_rolled_back else ("roll-back",))
            failed = self.recording.decided(*failures, after=since)
            if failed:
                one = failed[-1]
                raise Permanent(f"waited for {what}, but {one.kind} {one.subject}: {one.reason}", hint=self._where())
            if self.clock.monotonic() > end:
                raise DeadlineExceeded(
                    f"waited {deadline_s:g} s for {what}; the last decisions:\n{self._last()}", hint=self._where()
                )
            self.clock.sleep(0.1)

    def _let_pass(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self._show()
            self.clock.sleep(0.1)

    def _last(self) -> str:
        lines = [f"  {one.kind} {one.subject}: {one.reason}" for one in self.recording.decisions[-6:]]
        return "\n".join(lines or ["  (none)"])

    def _where(self) -> str:
        return f"logs are in {self.settings.state / 'logs'}; runs in {self.settings.state / 'runs'}"

    def _command(self, *arguments: str) -> None:
        self.screen.note("$ tidemill " + " ".join(arguments))
        run_command(arguments, self.settings)

    def _new_factory(self) -> Factory:
        return Factory(
            self.resource,
            kafka=self.settings.require_kafka(),
            endpoint=self.settings.endpoint or "",
            rate=self.size.per_second,
            seed=self.options.seed,
            clock=self.clock,
            on_answer=self.recording.take_answer,
        )

    def _line(self) -> Factory:
        if self.factory is None:
            raise RuntimeError("the factory is not built yet")
        return self.factory

    def _observer(self) -> Observer:
        if self.observer is None:
            raise RuntimeError("nobody observes yet")
        return self.observer

    def _show(self) -> None:
        self.screen.show(self.recording, self.factory.counts if self.factory else None)
