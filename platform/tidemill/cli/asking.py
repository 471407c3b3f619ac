"""Commands that ask something of control and wait for its answer: retrain and rollout."""

import getpass
from typing import Annotated, Any, Literal

import typer

from tidemill.cli.dataset import digest_of
from tidemill.cli.output import Output, OutputOption, emit
from tidemill.cli.telling import answer, lift_story, rollout_story
from tidemill.core.clock import to_ms
from tidemill.core.errors import Conflict, NotFound
from tidemill.core.ids import new_id
from tidemill.events.records import Decision, Request
from tidemill.wiring import Local, local

__all__ = ["person", "register"]

DEADLINE_S = 20.0

Name = Annotated[str, typer.Argument(help="The model.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the decision.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(retrain)
    rollout = typer.Typer(no_args_is_help=True, help="See a rollout, or take it into your own hands.")
    for command in (status, report, approve, pause, resume, abort, promote, revert):
        rollout.command()(command)
    app.add_typer(rollout, name="rollout")


def retrain(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; it stands with the run and the version.")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Even while the model is paused, labellers disagree or the budget is used up."),
    ] = False,
    skip_gates: Annotated[
        bool, typer.Option("--skip-gates", help="Let the version pass whatever its gates say; shown as such.")
    ] = False,
    snapshot: Annotated[
        str, typer.Option(help="A dataset to learn from again, as `tidemill dataset list` names it.")
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Start a run now; the cooldown does not apply. Exit status 4 if control refuses, with its reason."""
    asked: dict[str, str | int | float | bool | None] = {"reason": reason, "force": force, "skip_gates": skip_gates}
    if snapshot:
        asked["snapshot"] = digest_of(name, snapshot)
    _ask(name, "retrain", asked, output)


def status(name: Name, output: OutputOption = Output.TABLE) -> None:
    """How the rollout stands: its step, its outcomes so far, and what its evidence says."""
    from tidemill.cli.models import find, known_status

    found = known_status(find(local(), name))
    if found is None or found.rollout is None:
        last = next((one for one in reversed(found.decisions if found else ()) if one.kind in _ENDS), None)
        said = f"; the last one: {last.kind} {last.subject}: {last.reason}" if last else ""
        emit({"rollout": None, "last": last}, output, f"no rollout of {name} is under way{said}")
        return
    data = {"rollout": found.rollout, "progress": found.seen.rollout, "traffic": found.seen.traffic}
    emit(data, output, *rollout_story(found))


def report(
    name: Name,
    by: Annotated[str | None, typer.Option(help="Slices: `entity`, or a feature.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """The A/B report of the rollout under way, or of the last one: how much the versions differ, by slice."""
    from tidemill.cli.models import find, known_status
    from tidemill.control.known import known_resource
    from tidemill.control.rebuild import last_rollout
    from tidemill.rollout.report import rollout_report

    machine = local()
    stored = find(machine, name)
    found = known_status(stored)
    state, _ = last_rollout(found.decisions) if found else (None, [])
    judged = found and (found.rollout or found.watching or state)
    if not judged or judged.plan.champion is None:
        raise NotFound(f"no rollout of {name} is known that compared two versions", hint="see `tidemill describe`")
    lines = rollout_report(machine.settings.lake_uri, known_resource(stored), judged.plan, judged.spans, by=by)
    emit({"model": stored.resource.id, "rollout": judged.plan.rollout, "lifts": lines}, output, *lift_story(lines, by))


def approve(name: Name, reason: Reason = "", output: OutputOption = Output.TABLE) -> None:
    """Let a candidate that waits for approval begin its first step."""
    _ask(name, "approve", {"reason": reason}, output)


def abort(name: Name, reason: Reason = "", output: OutputOption = Output.TABLE) -> None:
    """Take the candidate back at once."""
    _ask(name, "abort", {"reason": reason}, output)


def pause(name: Name, reason: Reason = "", output: OutputOption = Output.TABLE) -> None:
    """Stay at the present share; a candidate that does harm is still taken back."""
    _ask(name, "pause", {"reason": reason}, output)


def resume(name: Name, reason: Reason = "", output: OutputOption = Output.TABLE) -> None:
    """Go on after a pause."""
    _ask(name, "resume", {"reason": reason}, output)


def promote(name: Name, reason: Reason = "", output: OutputOption = Output.TABLE) -> None:
    """Give the candidate all traffic, on your own judgement."""
    _ask(name, "promote", {"reason": reason}, output)


def revert(name: Name, reason: Reason = "", output: OutputOption = Output.TABLE) -> None:
    """Bring back the version before the champion; a run in flight is ended."""
    _ask(name, "revert", {"reason": reason}, output)


_ENDS = frozenset({"promote", "rolled-back"})


def _ask(
    name: str,
    kind: Literal["retrain", "abort", "pause", "resume", "approve", "promote", "revert"],
    arguments: dict[str, str | int | float | bool | None],
    output: Output,
) -> None:
    from tidemill.cli.models import find

    machine: Local = local()
    resource = find(machine, name).resource
    now = machine.clock.now()
    request = Request(
        request_id=new_id(now), kind=kind, model=resource.id, time=to_ms(now), by=person(), arguments=arguments
    )
    decision: Decision = machine.ask(resource, request, deadline_s=DEADLINE_S)
    if decision.kind == "refuse":
        hint: Any = decision.figures.get("hint")
        raise Conflict(f"control refused: {decision.reason}", hint=hint)
    emit(decision, output, *answer(decision))


def person() -> str:
    """Who runs the command, by the name of this machine's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "cli"
