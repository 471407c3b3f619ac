"""The command `dashboard`: the page people look at."""

from typing import Annotated

import typer

from tidemill.cli.output import say
from tidemill.core.settings import load_settings

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(dashboard)


def dashboard(
    host: Annotated[str | None, typer.Option(help="Interface; else the setting dashboard_host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port, 0 for a free one; else the setting dashboard_port.")
    ] = None,
) -> None:
    """Serve the page on which people see the loop, judge it and teach it; Ctrl-C ends it."""
    from tidemill.core.telemetry import setup_logging
    from tidemill.dashboard.server import run
    from tidemill.stack.ports import free_ports
    from tidemill.wiring import local

    settings, _ = load_settings()
    settings = settings.model_copy(update={} if host is None else {"dashboard_host": host})
    setup_logging(settings, "dashboard")
    wanted = settings.dashboard_port if port is None else port
    (at,) = free_ports(1) if wanted == 0 else (wanted,)
    say(f"the dashboard is at http://{settings.dashboard_host}:{at}")
    run(local(settings), host=settings.dashboard_host, port=at)
