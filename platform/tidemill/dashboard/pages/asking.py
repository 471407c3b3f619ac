"""Buttons by which an approver asks something of control, each with a reason that stands in the decision."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from nicegui import ui

from tidemill.dashboard.desk import Asking
from tidemill.dashboard.pages.frame import Page
from tidemill.dashboard.pages.parts import Text, box, button, tell
from tidemill.spec.model import ContinualModel

__all__ = ["buttons"]

Look = Literal["main", "quiet", "harm"]

_WORDS: Mapping[Asking, tuple[str, Look, str]] = {
    "approve": ("Approve", "main", "The candidate begins its first step."),
    "pause": ("Pause", "quiet", "No step is taken; a candidate that does harm is still taken back."),
    "resume": ("Resume", "quiet", "The rollout goes on."),
    "promote": ("Promote", "quiet", "The candidate gets all traffic now, on your own judgement."),
    "abort": ("Abort", "harm", "The candidate is taken back at once."),
    "revert": ("Bring back the version before", "harm", "The version before the champion serves again."),
    "retrain": ("Retrain", "main", "A run starts now; the cooldown does not apply."),
}


def buttons(page: Page, resource: ContinualModel, which: Sequence[Asking]) -> None:
    """A button for each; those that the viewer's role does not allow are there, and cannot be pressed."""
    with box("tm-row"):
        for kind in which:
            word, look, _ = _WORDS[kind]
            made = button(word, partial(_open, page, resource, kind), look)
            if not page.viewer.may(kind):
                made.props("disable")
                made.tooltip("takes an approver")


def _open(page: Page, resource: ContinualModel, kind: Asking) -> None:
    word, look, about = _WORDS[kind]
    # Beside the live parts of the page: within one, its next showing would take the dialog away.
    with ui.context.client.content, ui.dialog() as dialog, box("tm-dialog tm-col"):
        Text(f"{word}: {resource.metadata.name}", "h2", "tm-title")
        Text(about, classes="tm-sub")
        reason = ui.textarea("Why? It stands in the decision").props("outlined autofocus autogrow maxlength=1000")

        async def ask() -> None:
            send.disable()
            decision = await page.do(page.app.desk.ask, resource, kind, reason.value or "")
            send.enable()
            if decision is not None:
                page.app.sources.model.of(resource.id).forget()
                tell(f"{decision.kind} {decision.subject}: {decision.reason}", "positive")
                dialog.close()

        with box("tm-row"):
            send = button(word, ask, look)
            button("Cancel", dialog.close)
    dialog.on("hide", dialog.delete)
    dialog.open()
