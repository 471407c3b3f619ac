"""The command alerts: what is open and what was told of it, whether routes work, and the role that tells people."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli import roles
from tidemill.cli.output import Output, OutputOption, emit, table
from tidemill.core.errors import NotFound

if TYPE_CHECKING:
    from tidemill.alerts.notifier import Answer
    from tidemill.alerts.plan import AlertPlan
    from tidemill.events.records import Alert
    from tidemill.spec.alerts import AlertRoute
    from tidemill.wiring import Local

__all__ = ["register"]

Name = Annotated[str, typer.Argument(help="The model.")]
_EVERY_S = 0.05


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="See what people are told, or try the ways to them.")
    group.command("list")(list_alerts)
    group.command("test")(try_routes)
    group.command("run")(roles.alerts)
    app.add_typer(group, name="alerts")


def list_alerts(name: Name, output: OutputOption = Output.TABLE) -> None:
    """What is open, the oldest first: since when, whether it is muted, and when each route was told last."""
    from tidemill.alerts.memory import recall
    from tidemill.alerts.notify import open_alerts
    from tidemill.alerts.plan import alert_plan
    from tidemill.cli.models import find
    from tidemill.control.provision import topics_of
    from tidemill.core.clock import to_ms
    from tidemill.wiring import local

    machine = local()
    resource = find(machine, name).resource
    plan, now = alert_plan(resource), to_ms(machine.clock.now())
    state = recall(machine.settings.require_kafka(), topics_of(resource), plan, now)
    found = [_shown(alert, plan, now) for alert in open_alerts(state)]
    rows = [(*(one[column] for column in _COLUMNS), _told_in_words(one["told"])) for one in found]
    none = "no alert is open" + ("" if plan.routes else "; nobody is told: spec.alerts has no routes")
    emit(found, output, table((*_COLUMNS, "told"), rows) if rows else none)


def try_routes(
    name: Name,
    route: Annotated[str | None, typer.Option(help="Only this route.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send one real message through each route, by the URLs in this shell's environment. Exit status 1 if one fails."""
    from tidemill.cli.models import find
    from tidemill.wiring import local

    machine = local()
    resource = find(machine, name).resource
    routes = [one for one in resource.spec.alerts.routes if route in {None, one.name}]
    if not routes:
        known = ", ".join(one.name for one in resource.spec.alerts.routes) or "none"
        raise NotFound(f"{resource.id} has no route {route or 'to test'}", hint=f"routes in spec.alerts: {known}")
    answers = _tried(machine, resource.id, routes)
    found = [
        {"route": one.name, "taken": answer.failure is None, "said": answer.said, "failure": answer.failure}
        for one, answer in zip(routes, answers, strict=True)
    ]
    rows = [(one["route"], "ok" if one["taken"] else "failed", one["said"]) for one in found]
    emit(found, output, table(("route", "", "what came back"), rows))
    if any(answer.failure is not None for answer in answers):
        raise typer.Exit(1)


_COLUMNS = ("kind", "severity", "since", "about", "message", "muted")


def _shown(alert: "Alert", plan: "AlertPlan", now: int) -> dict[str, Any]:
    from tidemill.alerts.muting import muted
    from tidemill.alerts.plan import goes_to
    from tidemill.alerts.words import plain

    window = muted(alert, plan, now)
    about = (alert.subject, alert.feature, alert.slice, alert.version)
    return {
        "kind": alert.kind,
        "severity": alert.severity,
        "since": _time(alert.since),
        "about": " ".join(plain(part) for part in about if part),
        "message": plain(alert.message),
        "muted": f"until {_time(window.until)}: {window.reason}" if window else None,
        "told": {
            route.name: _time(told.at) if (told := alert.told.get(route.name)) else None
            for route in plan.routes
            if goes_to(alert, route)
        },
    }


def _told_in_words(told: dict[str, str | None]) -> str:
    return ", ".join(f"{route} {at or 'not yet'}" for route, at in told.items()) or "no route wants it"


def _tried(machine: "Local", model: str, routes: list["AlertRoute"]) -> list["Answer"]:
    """What came back from each; all are tried at a time."""
    from tidemill.alerts.delivery import missing_variable
    from tidemill.alerts.words import Message

    def message(route: str) -> Message:
        body = f"`tidemill alerts test` sent this through route {route}. If you read it, the route works."
        return Message(route=route, title=f"{model}: a test", body=body, level="info")

    sendings = [
        machine.notifier.send(url, message(route.name)) if (url := os.environ.get(route.url_env)) else None
        for route in routes
    ]
    answers: list[Answer] = []
    for route, sending in zip(routes, sendings, strict=True):
        answer = missing_variable(route) if sending is None else sending.answer()
        while answer is None and sending is not None:
            machine.clock.sleep(_EVERY_S)
            answer = sending.answer()
        answers.append(answer or missing_variable(route))
    return answers


def _time(at: int) -> str:
    from tidemill.core.clock import from_ms

    return from_ms(at).isoformat(timespec="seconds")
