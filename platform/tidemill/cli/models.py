"""Commands about models: validate, apply, get, describe, delete; predict, retrain, rollout have their own modules."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
import yaml

from tidemill.cli import asking, predicting
from tidemill.cli.code import check_code
from tidemill.cli.flow import flow_story, log_story
from tidemill.cli.label_quality import labels_story
from tidemill.cli.output import Output, OutputOption, emit, say, table
from tidemill.cli.telling import COLUMNS, described, summary
from tidemill.control.known import known_resource, known_status
from tidemill.control.protocols import StoredModel
from tidemill.control.triggers import why_not_now
from tidemill.core.errors import InvalidInput, NotFound
from tidemill.rollout.history import HistorySeen
from tidemill.rollout.power import Power, power_of, shadow_advice, too_few_keys
from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel
from tidemill.spec.quantities import format_duration
from tidemill.watch.flow import seen_flow, seen_log
from tidemill.wiring import Local, local

if TYPE_CHECKING:
    from tidemill.labels.agreement import Agreement

__all__ = ["find", "known_status", "register"]


class GetOutput(StrEnum):
    """For whom `get` writes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (validate, apply, get, describe, delete):
        app.command()(command)
    predicting.register(app)
    asking.register(app)


def validate(
    file: Annotated[Path, typer.Argument(help="YAML file of a ContinualModel.")], output: OutputOption = Output.TABLE
) -> None:
    """Check a ContinualModel: every problem with its file, line, path and what was expected. Exit status 2 if any."""
    resource = load(file)
    check_code(resource, file.resolve().parent)
    _check_service(resource, local())
    row = _row_bytes(resource)
    lines = [f"{file} is valid: it declares {resource.id}"]
    if resource.spec.features.windows:
        size = f"{row:,} bytes, {row / 1000:,.1f} GB for a million entities"
        lines.append(f"an online row takes up to about {size}, besides what Redis adds")
    history = _history(_stored(local(), resource.id))
    power, advice = _power(file, resource, history), shadow_advice(resource, history)
    lines += [told for told in (power.words() if power else None, advice) if told]
    data = {"model": resource.id, "valid": True, "online_row_bytes": row, "power": power, "advice": advice}
    emit(data, output, *lines)


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML file of a ContinualModel.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Declare a model, or change what was declared. The file's folder is where its classes are imported from."""
    resource = load(file)
    code = file.resolve().parent
    check_code(resource, code)
    _row_bytes(resource)
    machine = local()
    _check_service(resource, machine)
    before = _stored(machine, resource.id)
    machine.store.put(resource, code=str(code))
    result = "created" if before is None else "changed"
    if before is not None and (before.resource, before.code) == (resource, str(code)):
        result = "unchanged"
    emit({"model": resource.id, "result": result, "code": code}, output, f"{resource.id} {result}")
    if machine.settings.kafka is None and machine.settings.context is None:
        say("no stack runs yet: `tidemill up` starts it, and the model with it")


def get(
    name: Annotated[str | None, typer.Argument(help="A model; all without it.")] = None,
    output: Annotated[GetOutput, typer.Option("--output", "-o", help="`table`, `json` or `yaml`.")] = GetOutput.TABLE,
) -> None:
    """The models: what serves, what wants to, the traffic, and how the loop stands."""
    machine = local()
    found = [find(machine, name)] if name else list(machine.store.list())
    if output is GetOutput.TABLE:
        now = machine.clock.now()
        rows = [summary(_short(stored), known_status(stored), now) for stored in found]
        emit(None, Output.TABLE, table(COLUMNS, rows) if rows else "no models; `tidemill apply -f FILE` declares one")
        return
    documents = [_document(stored) for stored in found]
    data: Any = documents[0] if name else documents
    if output is GetOutput.JSON:
        emit(data, Output.JSON)
    else:
        typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100).rstrip())


def describe(name: Annotated[str, typer.Argument(help="The model.")], output: OutputOption = Output.TABLE) -> None:
    """One model in full, and why: its last decisions with reasons and figures, and what it waits for."""
    machine = local()
    stored = find(machine, name)
    status = known_status(stored)
    if status is None:
        emit(_document(stored), output, f"{stored.resource.id} waits for control; is it running? See `tidemill status`")
        return
    now = machine.clock.now()
    why_not = why_not_now(stored.resource, status, now)
    state, model = machine.settings.state, stored.resource.id
    flow, log, said = seen_flow(state, model), seen_log(state, model), _labels(machine, stored)
    data = _document(stored) | {"why_not_retraining": why_not, "events": flow, "prediction_log": log, "labels": said}
    parts = (*flow_story(flow), *log_story(log), *labels_story(said))
    emit(data, output, *described(stored.resource, status, why_not, now), *parts)


def delete(name: Annotated[str, typer.Argument(help="The model.")], output: OutputOption = Output.TABLE) -> None:
    """Stop keeping a model: its processes and traffic end. Its topics, tables and versions stay."""
    machine = local()
    model = find(machine, name).resource.id
    machine.store.delete(model)
    emit({"model": model, "result": "deleted"}, output, f"{model} deleted; its topics, tables and versions stay")


def find(machine: Local, name: str) -> StoredModel:
    """A model by its name (in the settings' namespace, or `default`) or id. Raises `NotFound` naming what there is."""
    namespace = machine.settings.namespace or "default"
    try:
        return machine.store.get(name if "." in name else f"{namespace}.{name}")
    except NotFound as error:
        known = ", ".join(sorted(machine.store.ids()))
        hint = f"there are: {known}" if known else "`tidemill apply -f FILE` declares one"
        raise NotFound(f"there is no model {name}", hint=hint) from error


def _stored(machine: Local, model: str) -> StoredModel | None:
    try:
        return machine.store.get(model)
    except (NotFound, InvalidInput):
        return None


def _history(stored: StoredModel | None) -> HistorySeen:
    """What is known of the champion."""
    known = known_status(stored) if stored else None
    return known.seen.history if known else HistorySeen()


def _power(file: Path, resource: ContinualModel, history: HistorySeen) -> Power | None:
    """What a rollout would need, by what is known of the champion; refused where its timeout cannot be met."""
    if few := too_few_keys(resource, history):
        hint = "raise the margin, or leave out rollout.cohorts: requests are assigned by chance then"
        raise InvalidInput(f"{file}: spec.rollout.cohorts.key: {few}", hint=hint)
    power = power_of(resource, history)
    if power is not None and power.fits is False:
        timeout = format_duration(resource.spec.rollout.analysis.timeout)
        raise InvalidInput(
            f"{file}: spec.rollout.analysis.timeout: {timeout} is too short: {power.words()}",
            hint="raise it, the margin, or the last share before 100",
        )
    return power


def _labels(machine: Local, stored: StoredModel) -> "Agreement | None":
    from tidemill.labels.recent import recent_agreement

    return recent_agreement(machine.settings.lake_uri, known_resource(stored), machine.clock.now())


def _short(stored: StoredModel) -> str:
    metadata = stored.resource.metadata
    return metadata.name if metadata.namespace == "default" else stored.resource.id


def _document(stored: StoredModel) -> dict[str, Any]:
    """The resource with its status, as Kubernetes shows one."""
    content: dict[str, Any] = stored.resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
    status = known_status(stored)
    return content | {"status": None if status is None else msgspec.to_builtins(status, str_keys=True)}


def _check_service(resource: ContinualModel, machine: Local) -> None:
    """Raise a `TidemillError` where the FeatureService that the resource names cannot be used. Imports Feast then."""
    if resource.spec.features.service is None:
        return
    from tidemill.features.service import open_service

    open_service(resource, machine.settings.feast_repo)


def _row_bytes(resource: ContinualModel) -> int:
    """What an online row takes with each tile occupied. Raises `InvalidInput` where that is more than is taken."""
    from tidemill.features.label_events import label_layout
    from tidemill.features.layout import layout_of, row_bytes

    of_labels = label_layout(resource)
    return row_bytes(layout_of(resource)) + (row_bytes(of_labels) if of_labels.windows else 0)
