"""The command predict: one event to the endpoint that the inspection program itself would ask."""

import base64
import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli.output import Output, OutputOption, emit
from tidemill.core.errors import InvalidInput, TidemillError, Unavailable
from tidemill.spec.model import ContinualModel, EventField
from tidemill.spec.paths import predict_path
from tidemill.wiring import local

__all__ = ["instance", "register"]

_TIMEOUT_S = 30.0


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(predict)


def predict(
    name: Annotated[str, typer.Argument(help="The model.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A picture, for the event's image field; or an event as JSON.")
    ] = None,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help='The event\'s fields as JSON, e.g. \'{"station": "A"}\'.')
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask the model, as the endpoint's clients do; the answer is logged like any other."""
    from tidemill.cli.models import find

    machine = local()
    resource = find(machine, name).resource
    row = instance(resource, file, event)
    answer = _post(machine.settings.endpoint, resource, {"instances": [row]})
    predictions = answer.get("predictions", answer)
    shown = predictions[0] if isinstance(predictions, list) and predictions else predictions
    emit(shown, output, json.dumps(shown, ensure_ascii=False))


def instance(resource: ContinualModel, file: Path | None, event: str | None) -> dict[str, Any]:
    """The row to predict: the event's JSON, with the file as its picture, or the file as the event itself."""
    row = _object(event, "--event") if event else {}
    if file is not None:
        row |= _from_file(resource.image_field, file)
    if not row:
        raise InvalidInput("there is nothing to predict", hint="give a --file, an --event, or both")
    events = resource.spec.events
    needed = [events.entity.name, *(field.name for field in events.fields if field.required)]
    known = {*needed, *(field.name for field in events.fields), events.timestamp, events.id or events.timestamp}
    if unknown := sorted(row.keys() - known):
        names = ", ".join(sorted(known))
        raise InvalidInput(f"{resource.id} has no field {', '.join(unknown)}", hint=f"its fields are {names}")
    missing = [name for name in needed if name not in row]
    if missing:
        raise InvalidInput(f"the event lacks {', '.join(missing)}", hint="give it with --event, a picture with --file")
    return row


def _from_file(image: EventField | None, file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    if file.suffix.lower() == ".json":
        return _object(content.decode(errors="replace"), str(file))
    if image is None:
        raise InvalidInput(f"{file} looks like a picture, and the model's events have no image field")
    return {image.name: base64.b64encode(content).decode()}


def _object(text: str, origin: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{origin} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{origin} must be a JSON object, not {type(found).__name__}")
    return found


def _post(endpoint: str | None, resource: ContinualModel, body: dict[str, Any]) -> dict[str, Any]:
    if endpoint is None:
        raise Unavailable("no endpoint is known: no stack runs", hint="start one with `tidemill up`")
    url = endpoint + predict_path(resource)
    request = urllib.request.Request(  # noqa: S310 -- the endpoint is a setting, never a user's file: URL
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310 -- as above
            found: dict[str, Any] = json.loads(response.read())
            return found
    except urllib.error.HTTPError as error:
        raise _refused(error) from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"{url} does not answer: {error}", hint="see `tidemill status` and `tidemill get`") from error


def _refused(error: urllib.error.HTTPError) -> TidemillError:
    """What an answer that is none means."""
    said = error.read().decode(errors="replace").strip()
    with contextlib.suppress(ValueError, AttributeError):  # not JSON, or no object: shown as it is
        said = str(json.loads(said).get("error", said))
    if error.code == 400:
        return InvalidInput(f"the model refused the event: {said}")
    if error.code in {404, 503}:
        return Unavailable(f"no version serves yet ({said or error.reason})", hint="`tidemill describe` says why")
    return Unavailable(f"the model answered {error.code}: {said or error.reason}")
