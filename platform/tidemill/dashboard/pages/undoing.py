"""What somebody said can be taken back: a bar at the foot of the page with their last labels."""

from functools import partial

from tidemill.dashboard.desk import Undone
from tidemill.dashboard.pages.frame import Page
from tidemill.dashboard.pages.parts import Text, box, button, tell

__all__ = ["Undoing"]

_KEPT = 3


class Undoing:
    """The bar of one page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._said: list[tuple[str, int]] = []
        self._bar = box("tm-bulk")
        self._bar.props["aria-live"] = "polite"
        self._bar.set_visibility(False)

    def offer(self, batch: str, labels: int) -> None:
        """Labels were said: they can be taken back."""
        self._said = [*self._said, (batch, labels)][-_KEPT:]
        self._draw()

    def _draw(self) -> None:
        self._bar.clear()
        self._bar.set_visibility(bool(self._said))
        with self._bar:
            for batch, labels in reversed(self._said):
                words = "1 label" if labels == 1 else f"{labels:,} labels"
                Text(f"{words}, sent {self._page.app.desk.grace_s:.0f} s after they were said", "span")
                button(f"Undo {words}", partial(self._undo, batch))

    async def _undo(self, batch: str) -> None:
        undone: Undone | None = await self._page.do(self._page.app.desk.undo, batch)
        if undone is None:  # it was told why, and can be tried again
            return
        self._said = [one for one in self._said if one[0] != batch]
        self._draw()
        stay = f"; {undone.stay:,} had no label before and stay: say what is true" if undone.stay else ""
        tell(f"{undone.labels:,} as before{stay}", "positive")
