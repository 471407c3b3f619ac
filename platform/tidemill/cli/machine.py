"""Commands about this machine: up, down, status, config, doctor."""

import signal
import threading
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.output import Output, OutputOption, emit, say, table
from tidemill.core.clock import SystemClock
from tidemill.core.errors import Conflict
from tidemill.core.exposition import metrics_addresses, serve_metrics
from tidemill.core.settings import Settings, load_settings, masked
from tidemill.stack.running import StackFile, start_detached, stop, wait_for_other, what_runs
from tidemill.stack.wanted import FileSupervisor

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (up, down, status, config, doctor):
        app.command()(command)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it is ready, and leave it running.")
    ] = False,
    control: Annotated[bool, typer.Option(help="Run the loop itself, not only what it stands on.")] = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start Kafka, Redis, Envoy and the loop on this machine; Ctrl-C ends them."""
    settings, origins = load_settings()
    settings = own_servers_only(settings, origins)
    running = what_runs(settings.state)
    if running is not None:
        say(f"it runs already (pid {running.pid})")
    elif detach:
        running = start_detached(settings, control=control, clock=SystemClock())
    else:
        # The supervisor's own log is for when something goes wrong; a person asks for more by name.
        level = settings.log_level if origins["log_level"] != "default" else "warning"
        running = _hold(settings, level, control=control, output=output)
    if running is not None:
        _show_stack(running, settings, output)


def _hold(settings: Settings, level: str, *, control: bool, output: Output) -> StackFile | None:
    """Run the stack until a signal; or, where another process was first, what that one runs."""
    from tidemill.core.telemetry import REGISTRY, setup_logging
    from tidemill.stack.children import ChildrenMetrics
    from tidemill.stack.machine import Machine
    from tidemill.stack.runner import OWNER

    setup_logging(settings.model_copy(update={"log_level": level}), "up")
    clock, signals = SystemClock(), _Signals()
    try:
        machine = Machine(settings, control=control, clock=clock, report=say, stopping=signals.asked.is_set)
    except Conflict:
        other = wait_for_other(settings.state, clock=clock)
        say(f"another `tidemill up` was first (pid {other.pid})")
        return other
    REGISTRY.register(ChildrenMetrics(machine.children))
    try:
        serve_metrics(settings, OWNER, REGISTRY)
        started = machine.start()
        if started is not None:
            _show_stack(started, settings, output)
            say("ready; Ctrl-C ends it")
            machine.run()
        say("ending")
    finally:
        machine.end(hurry=signals.asked_twice.is_set)
    return None


def down(output: OutputOption = Output.TABLE) -> None:
    """End everything that `tidemill up` started; returns once nothing of it runs."""
    settings, _ = load_settings()
    ran = stop(settings.state, clock=SystemClock())
    emit({"ended": ran}, output, "ended" if ran else "nothing runs")


def status(output: OutputOption = Output.TABLE) -> None:
    """What runs, and how it is. Exit status: 0 all is well, 1 something fails, 3 nothing runs."""
    settings, _ = load_settings()
    stack = what_runs(settings.state)
    if stack is None:
        emit({"running": False, "processes": []}, output, Text(f"no stack runs under {settings.state}"))
        raise typer.Exit(3)
    seen = FileSupervisor(settings.state / "processes").observe()
    addresses = metrics_addresses(settings.state)
    metrics = {one.name: found for one in seen if (found := addresses.get((one.name, one.pid or 0)))}
    rows = [
        (one.name, one.state, one.pid, one.restarts, one.exit_status, metrics.get(one.name), one.log) for one in seen
    ]
    columns = ("process", "state", "pid", "restarts", "last exit", "metrics", "log")
    data = {"running": True, "pid": stack.pid, "settings": _masked(stack), "processes": seen, "metrics": metrics}
    emit(data, output, _addresses(stack, settings), "", table(columns, rows))
    if any(one.state == "failing" or (one.state == "starting" and one.restarts) for one in seen):
        raise typer.Exit(1)


def config(output: OutputOption = Output.TABLE) -> None:
    """Every setting, its value, and where it comes from."""
    settings, origins = load_settings()
    rows = [(name, None if value is None else masked(value), origins[name]) for name, value in settings]
    data = [{"name": name, "value": value, "origin": origin} for name, value, origin in rows]
    emit(data, output, table(("setting", "value", "from"), rows))


def doctor(
    output: OutputOption = Output.TABLE,
    cluster: Annotated[bool, typer.Option("--cluster", help="Look at the cluster instead of this machine.")] = False,
) -> None:
    """What is missing on this machine, or on a cluster, and what helps. Exit status 1 if something is missing."""
    from tidemill.stack.doctor import examine

    settings, origins = load_settings()
    own = own_servers_only(settings, origins)
    if cluster:
        from tidemill.wiring import cluster as wired

        checks = wired(own).examine()
    else:
        checks = examine(own)
    rows = [(check.state, check.name, check.found, check.hint) for check in checks]
    emit(checks, output, table(("", "what", "found", "what helps"), rows))
    if any(check.state == "missing" for check in checks):
        raise typer.Exit(1)


def own_servers_only(settings: Settings, origins: dict[str, str]) -> Settings:
    """The settings without what the running stack says: Kafka and Redis only where a person named them."""
    said = str(settings.state / "stack.json")
    return settings.model_copy(update={name: None for name, origin in origins.items() if origin == said})


class _Signals:
    """SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, the second for one at once."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.asked_twice = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take)

    def _take(self, *_: object) -> None:
        if self.asked.is_set():
            self.asked_twice.set()
        self.asked.set()


def _show_stack(stack: StackFile, settings: Settings, output: Output) -> None:
    emit({"pid": stack.pid, "state": settings.state, "settings": _masked(stack)}, output, _addresses(stack, settings))


def _addresses(stack: StackFile, settings: Settings) -> Table:
    rows = [("running since", stack.started), ("pid", stack.pid), *_masked(stack).items(), ("state", settings.state)]
    return table(("", ""), rows)


def _masked(stack: StackFile) -> dict[str, str]:
    return {name: masked(value) for name, value in stack.settings.items()}
