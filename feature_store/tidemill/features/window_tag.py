"""What the windows of a feature view are, kept in a tag of the view: Feast's fields have names and types alone.

Imports no Feast.
"""

from collections.abc import Mapping, Set
from datetime import timedelta
from typing import NamedTuple

from pydantic import TypeAdapter

from tidemill.features.label_events import LABELS, label_kinds
from tidemill.features.layout import EVENTS, Kind
from tidemill.spec.model import ContinualModel, Window

__all__ = ["WINDOWS_TAG", "ViewWindows", "windows_in", "windows_tag"]

WINDOWS_TAG = "tidemill.windows"
"""Tag of a view and of its source: the windows among the features, as JSON."""


class ViewWindows(NamedTuple):
    """The windows of a view, and what of the events' times their values depend on."""

    windows: tuple[Window, ...]
    allowed_lateness: timedelta
    max_future: timedelta
    label_fields: tuple[tuple[str, Kind], ...] = ()
    """Of a view of labels: the fields that its windows are of."""

    def of(self, names: Set[str]) -> tuple[Window, ...]:
        """Those that give one of these features."""
        return tuple(window for window in self.windows if not names.isdisjoint(window.features))

    @property
    def names(self) -> frozenset[str]:
        """Their features."""
        return frozenset(name for window in self.windows for name in window.features)


_adapter = TypeAdapter(ViewWindows)


def windows_tag(resource: ContinualModel, view: str = EVENTS) -> dict[str, str]:
    """The tag of one of the model's views; none where it has no window."""
    features, events = resource.spec.features, resource.spec.events
    windows = features.label_windows if view == LABELS else features.event_windows
    if not windows:
        return {}
    fields = label_kinds(resource) if view == LABELS else ()
    content = ViewWindows(windows, events.allowed_lateness, events.max_future, fields)
    return {WINDOWS_TAG: _adapter.dump_json(content, by_alias=True).decode()}


def windows_in(tags: Mapping[str, str]) -> ViewWindows:
    """The windows that the tags tell of."""
    text = tags.get(WINDOWS_TAG)
    return ViewWindows((), timedelta(0), timedelta(0)) if text is None else _adapter.validate_json(text)
