"""Buttons by which an approver asks something of control, each with a reason that stands in the decision."""

from collections.abc import Mapping, Sequence

from nicegui import ui

from tidemill.dashboard.desk import Asking
from tidemill.dashboard.pages.frame import Page
from tidemill.dashboard.pages.parts import Text, box
from tidemill.spec.model import ContinualModel

__all__ = ["buttons"]

_WORDS: Mapping[Asking, tuple[str, str, str]] = {
    "approve": ("Approve", "tm-btn", "The candidate begins its first step."),
    "pause": ("Pause", "tm-btn2", "No step is taken; a candidate that does harm is still taken back."),
    "resume": ("Resume", "tm-btn2", "The rollout goes on."),
    "promote": ("Promote", "tm-btn2", "The candidate gets all traffic now, on your own judgement."),
    "abort": ("Abort", "tm-btn3", "The candidate is taken back at once."),
    "revert": ("Bring back the version before", "tm-btn3", "The version before the champion serves again."),
    "retrain": ("Retrain", "tm-btn", "A run starts now; the cooldown does not apply."),
}


def buttons(page: Page, resource: ContinualModel, which: Sequence[Asking]) -> None:
    """A button for each; those that the viewer's role does not allow are there, and cannot be pressed."""
    with box("tm-row"):
        for kind in which:
            word, classes, _ = _WORDS[kind]
            made = ui.button(word, on_click=lambda kind=kind: _open(page, resource, kind)).classes(classes)
            made.props("unelevated no-caps")
            if not page.viewer.may(kind):
                made.props("disable")
                made.tooltip("takes an approver")


def _open(page: Page, resource: ContinualModel, kind: Asking) -> None:
    word, classes, about = _WORDS[kind]
    with ui.dialog() as dialog, box("tm-dialog tm-col"):
        Text(f"{word}: {resource.metadata.name}", "h2", "tm-title")
        Text(about, classes="tm-sub")
        reason = ui.textarea("Why? It stands in the decision").props("outlined autofocus autogrow maxlength=1000")

        async def ask() -> None:
            send.disable()
            decision = await page.do(page.app.desk.ask, resource, kind, reason.value or "")
            send.enable()
            if decision is not None:
                page.app.sources.model.of(resource.id).forget()
                ui.notify(f"{decision.kind} {decision.subject}: {decision.reason}", type="positive", multi_line=True)
                dialog.close()

        with box("tm-row"):
            send = ui.button(word, on_click=ask).classes(classes).props("unelevated no-caps")
            ui.button("Cancel", on_click=dialog.close).classes("tm-btn2").props("unelevated no-caps")
    dialog.on("hide", dialog.delete)
    dialog.open()
