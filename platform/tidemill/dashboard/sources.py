"""What the pages read, each once for all who look: so a hundred viewers cost what one does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tidemill.artifacts import artifact_root, artifact_uri, local_folder
from tidemill.control.known import known_resource, known_status
from tidemill.control.protocols import StoredModel
from tidemill.control.provision import topics_of
from tidemill.control.rebuild import last_rollout
from tidemill.control.state import LoopStatus
from tidemill.control.triggers import why_not_now
from tidemill.core.errors import Corrupt, NotFound, TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.dashboard.audit import Audit
from tidemill.dashboard.copies import newest_copies
from tidemill.dashboard.pictures import Pictures, Shown
from tidemill.dashboard.queries.browse import LOOKED_AT, Found, Thing, Wanted, browse, things_of, things_of_events
from tidemill.dashboard.queries.differing import Differing, differing
from tidemill.dashboard.queries.drift import FeatureDrift, drift_of
from tidemill.dashboard.queries.lineage import Step, steps_of
from tidemill.dashboard.queries.models import Headline, ModelRow, headline_of, model_row
from tidemill.dashboard.queries.quality import QualityPoint, newest_slices, quality_over_time
from tidemill.dashboard.queries.rollout import RolloutView, Trail, TrailPoint, rollout_view
from tidemill.dashboard.queries.said import Said, said_of
from tidemill.dashboard.queries.sides import SlicePair, slices_beside
from tidemill.dashboard.queries.timeline import Entry, timeline
from tidemill.dashboard.queries.versions import VersionRow, versions_of
from tidemill.dashboard.shared import SharedByKey
from tidemill.events.records import Prediction
from tidemill.labels.agreement import Agreement, Place
from tidemill.labels.recent import Asked, next_round, recent_agreement
from tidemill.outcomes.slices import SliceReport
from tidemill.registry.lineage import Lineage
from tidemill.rollout.report import Lift, rollout_report
from tidemill.spec.model import ContinualModel
from tidemill.watch.flow import Flow, seen_flow
from tidemill.watch.health import Line, Look, Scrape, health
from tidemill.watch.scraping import scrape
from tidemill.wiring import Local

__all__ = ["PAGE", "DifferingShown", "FoundShown", "ModelView", "Queue", "Sources"]

PAGE = 24
"""Things on one page of the browser."""
LABELS = 50_000
"""Labels whose agreement is told: more would take longer than a second to compare."""
QUEUE = 40
"""Lines of the queue that are shown."""

_log = get_logger(__name__)

_LONG_PAST_S = 300.0

ModelView = tuple[ModelRow, LoopStatus | None, tuple[str, ...], tuple[Entry, ...], RolloutView | None]
"""Of a model by its status alone: its row, the status, why no run starts now, what happened, how its rollout stands."""

FoundShown = tuple[Found, Mapping[str, Shown]]
"""A page of things, and their pictures by prediction."""
DifferingShown = tuple[Differing, Mapping[str, Shown]]
"""Where two versions differ, and the pictures by prediction."""
Queue = tuple[Asked, tuple[Thing | None, ...], Mapping[str, Shown]]
"""A round of the queue, the thing of each of its lines, and their pictures by prediction."""


class Sources:
    """Shared values by model; `machine` is where everything is."""

    def __init__(self, machine: Local, audit: Audit, pictures: Pictures) -> None:
        self.machine, self._audit, clock = machine, audit, machine.clock
        self._pictures = pictures
        self._headlines: dict[str, tuple[Headline | None, float]] = {}
        """What was read last, and when; rows show nothing rather than what is long past."""
        self._flows: dict[str, Flow | None] = {}
        self._scrapes: dict[str, Scrape] = {}
        self._trails: dict[str, Trail] = {}
        self.models = SharedByKey[str, Sequence[ModelRow]](self._models, clock, 1.0)
        self.model = SharedByKey[str, ModelView](self._model, clock, 0.8)
        self.headlines = SharedByKey[str, Headline | None](self._headline, clock, 20.0)
        self.quality = SharedByKey[str, tuple[int, tuple[QualityPoint, ...]]](self._quality, clock, 15.0)
        self.drift = SharedByKey[str, tuple[FeatureDrift, ...]](self._drift, clock, 4.0)
        self.slices = SharedByKey[str, "SliceReport | None"](self._slices, clock, 60.0)
        self.health = SharedByKey[str, Sequence[Line]](self._health, clock, 5.0)
        self.trail = SharedByKey[str, tuple[tuple[TrailPoint, ...], bool]](self._trail, clock, 3.0)
        self.versions = SharedByKey[str, tuple[VersionRow, ...]](self._versions, clock, 20.0)
        self.lineage = SharedByKey[tuple[str, str], tuple[Step, ...]](self._lineage, clock, 30.0)
        self.differing = SharedByKey[tuple[str, str, str], DifferingShown](self._differing, clock, 30.0)
        self.sides = SharedByKey[tuple[str, str, str], tuple[SlicePair, ...]](self._sides, clock, 30.0)
        self.report = SharedByKey[tuple[str, str], Sequence[Lift]](self._report, clock, 10.0)
        self.agreement = SharedByKey[str, "Agreement | None"](self._agreement, clock, 15.0)
        self.found = SharedByKey[tuple[str, Wanted, int], FoundShown](self._found, clock, 10.0)
        self.queue = SharedByKey[str, Queue](self._queue, clock, 30.0)

    def warm(self) -> None:
        """Do once what is slow the first time alone, such as importing MLflow: no viewer should wait for it."""
        try:
            for stored in self.machine.store.list()[:1]:
                self._headline(stored.resource.id)
                self._versions(stored.resource.id)
        except TidemillError as error:  # pages say it where it matters
            _log.info("nothing could be read at the start", reason=error.message)

    def stored(self, model: str) -> StoredModel:
        """A model by id; raises `NotFound` or `InvalidInput`."""
        return self.machine.store.get(model)

    def resource(self, model: str) -> ContinualModel:
        """The resource with the classes that its versions know."""
        return known_resource(self.stored(model))

    def _models(self, _: str) -> Sequence[ModelRow]:
        now = self.machine.clock.now()
        return [
            model_row(one, now, self._last(one.resource.id), self._flow(one.resource.id))
            for one in self.machine.store.list()
        ]

    async def read_headlines(self, models: Sequence[str]) -> None:
        """Read how right each model is, one after the other, those that were read lately left out."""
        for model in models:
            await self.headlines.of(model).get(patient=True)

    def _flow(self, model: str) -> Flow | None:
        return self._flows.get(model)

    def _model(self, model: str) -> ModelView:
        stored, now = self.stored(model), self.machine.clock.now()
        status = _status(stored)
        row = model_row(stored, now, self._last(model), self._flow(model))
        why = why_not_now(stored.resource, status, now) if status else ()
        rollout = rollout_view(stored.resource, status) if status else None
        return row, status, why, timeline(status, self._audit.newest(model)), rollout

    def _headline(self, model: str) -> Headline | None:
        """Also how its events flow: both are part of the rows from then on."""
        self._flows[model] = seen_flow(self.machine.settings.state, model)
        stored = self.stored(model)
        found = headline_of(self.machine.settings.lake_uri, stored, self.machine.clock.now())
        self._headlines[model] = found, self.machine.clock.monotonic()
        return found

    def _last(self, model: str) -> Headline | None:
        found, at = self._headlines.get(model, (None, 0.0))
        return found if self.machine.clock.monotonic() - at < _LONG_PAST_S else None

    def _quality(self, model: str) -> tuple[int, tuple[QualityPoint, ...]]:
        return quality_over_time(self.machine.settings.lake_uri, self.resource(model))

    def _drift(self, model: str) -> tuple[FeatureDrift, ...]:
        stored = self.stored(model)
        return drift_of(self.machine.settings.lake_uri, known_resource(stored), _status(stored))

    def _slices(self, model: str) -> SliceReport | None:
        return newest_slices(self.machine.settings.lake_uri, self.resource(model))

    def _health(self, model: str) -> Sequence[Line]:
        settings = self.machine.settings
        now = scrape(settings.state, model, self.machine.supervisor.observe(), self.machine.clock)
        before, self._scrapes[model] = self._scrapes.get(model), now
        return health(self.stored(model).resource, Look(now, before, model))

    def _trail(self, model: str) -> tuple[tuple[TrailPoint, ...], bool]:
        stored = self.stored(model)
        status = _status(stored)
        if status is None or status.rollout is None:
            return (), False
        plan, trail = status.rollout.plan, self._trails.get(model)
        if trail is None or trail.plan != plan:
            trail = self._trails[model] = Trail(plan)
        return trail.follow(self.machine.settings.lake_uri, model, status.rollout.spans)

    def _versions(self, model: str) -> tuple[VersionRow, ...]:
        return versions_of(self.machine.registry, model, _status(self.stored(model)))

    def _lineage(self, key: tuple[str, str]) -> tuple[Step, ...]:
        model, version = key
        settings, resource = self.machine.settings, self.resource(model)
        folder = local_folder(artifact_uri(artifact_root(resource, settings), resource, version))
        found = Lineage(settings.lake_uri, folder, self.machine.registry, model).of_version(version)
        return () if found is None else steps_of(found)

    def _differing(self, key: tuple[str, str, str]) -> DifferingShown:
        model, one, other = key
        resource = self.resource(model)
        copies, note = self._copies(resource)
        found = differing(self.machine.settings.lake_uri, resource, one, other, copies=copies)
        return replace(found, note=note), self._shown(model, [pair.one for pair in found.pairs])

    def _copies(self, resource: ContinualModel) -> tuple[Sequence[Prediction], str]:
        """What candidates answered to copies, where there are any; and why they are left out."""
        if not resource.spec.rollout.shadow:
            return (), ""
        try:
            kafka = self.machine.settings.require_kafka()
            return newest_copies(kafka, topics_of(resource).copies, LOOKED_AT), ""
        except NotFound:  # no candidate had copies yet
            return (), ""
        except TidemillError as error:
            return (), f"answers to copies cannot be read now: {error.message}"

    def _sides(self, key: tuple[str, str, str]) -> tuple[SlicePair, ...]:
        model, one, other = key
        return slices_beside(self.machine.settings.lake_uri, self.resource(model), one, other)

    def _report(self, key: tuple[str, str]) -> Sequence[Lift]:
        """As `tidemill rollout report` has it; `by` is empty for no slices. Nothing without a rollout of two."""
        model, by = key
        stored = self.stored(model)
        status = _status(stored)
        judged = status and (status.rollout or status.watching or last_rollout(status.decisions)[0])
        if not judged or judged.plan.champion is None:
            return ()
        try:
            return rollout_report(
                self.machine.settings.lake_uri, known_resource(stored), judged.plan, judged.spans, by=by or None
            )
        except NotFound:
            return ()

    def _agreement(self, model: str) -> Agreement | None:
        lake, now = self.machine.settings.lake_uri, self.machine.clock.now()
        return recent_agreement(lake, self.resource(model), now, most=LABELS)

    def _found(self, key: tuple[str, Wanted, int]) -> FoundShown:
        model, wanted, skip = key
        lake, now = self.machine.settings.lake_uri, self.machine.clock.now()
        found = browse(lake, self.resource(model), wanted, now, limit=PAGE, skip=skip)
        return found, self._shown(model, found.things)

    def _shown(self, model: str, things: Sequence[Thing]) -> Mapping[str, Shown]:
        shown = {one.prediction_id: self._pictures.show(model, one.picture) for one in things if one.picture}
        return {name: one for name, one in shown.items() if one is not None}

    def look_at(self, model: str, place: Place) -> tuple[tuple[Thing, ...], Mapping[str, Shown]]:
        """What was labelled, with its picture. Raises `NotFound`, `Unavailable`."""
        lake, resource = self.machine.settings.lake_uri, self.resource(model)
        if place.event_id is not None:
            things = things_of_events(lake, resource, [(place.entity or "", place.event_id)])
        else:
            things = things_of(lake, resource, [place.prediction_id or ""])
        return things, self._shown(model, things)

    def said(self, model: str, thing: Thing) -> tuple[Said, ...]:
        """What each labeller said of a thing. Raises `NotFound`, `Unavailable`."""
        return said_of(self.machine.settings.lake_uri, self.resource(model), thing)

    def _queue(self, model: str) -> Queue:
        """A round of the queue. Its picks are recorded by whoever shows it, before it is shown."""
        stored = self.stored(model)
        resource, status = known_resource(stored), _status(stored)
        drifted = {entity for one in status.drift.alarms for entity in one.entities} if status else set()
        lake, now = self.machine.settings.lake_uri, self.machine.clock.now()
        asked = next_round(lake, resource, now, limit=QUEUE, drifted=drifted)
        named = things_of(lake, resource, [one.prediction_id for one in asked.lines if one.prediction_id])
        events = [(one.entity or "", one.event_id) for one in asked.lines if not one.prediction_id and one.event_id]
        of_events = things_of_events(lake, resource, events) if events else ()
        known = {one.prediction_id: one for one in named} | {(one.entity, one.event_id): one for one in of_events}
        found = [known.get(one.prediction_id or (one.entity or "", one.event_id)) for one in asked.lines]
        return asked, tuple(found), self._shown(model, [one for one in found if one is not None])


def _status(stored: StoredModel) -> LoopStatus | None:
    """None where there is none, or it cannot be read: control rebuilds it."""
    try:
        return known_status(stored)
    except Corrupt:
        return None
