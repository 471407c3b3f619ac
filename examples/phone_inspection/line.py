"""The phone factory by hand, for a stack that runs: `python examples/phone_inspection/line.py --help`.

history     enter labelled pictures of earlier, from which the first version is trained
run         let the line run: pictures to the events topic and to the endpoint, labels one to three seconds later
desks       let five desks label phones; two of them call dirt a scratch (`tidemill labels agreement`)
picture     draw a phone, for `tidemill predict --file`
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from inspection.acts import HISTORY_PER_SECOND
from inspection.camera import DEFOCUSED, DIRTY, GOOD, SWAPPED
from inspection.delivery import Delivery
from inspection.desks import check, draw_checked
from inspection.factory import Factory, draw_history
from inspection.inspector import Inspected, Inspector
from inspection.render import CHANGED, NORMAL, STATIONS, render

from tidemill.cli.output import say, show_error
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import TidemillError
from tidemill.core.settings import load_settings
from tidemill.spec.load import load

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
RESOURCE = Path(__file__).with_name("model.yaml")


class Lamps(StrEnum):
    """The light at the stations."""

    NORMAL = "normal"
    CHANGED = "changed"


class Cameras(StrEnum):
    """The cameras of the stations."""

    GOOD = "good"
    DEFOCUSED = "defocused"
    SWAPPED = "swapped"
    DIRTY = "dirty"


class Stations(StrEnum):
    """Where the cameras are so."""

    ALL = "all"
    NORTH = "north"
    EAST = "east"
    SOUTH = "south"


_CAMERAS = {Cameras.GOOD: GOOD, Cameras.DEFOCUSED: DEFOCUSED, Cameras.SWAPPED: SWAPPED, Cameras.DIRTY: DIRTY}


@app.command()
def history(count: Annotated[int, typer.Option(help="How many pictures.", min=1)] = 6300, seed: int = 1) -> None:
    """Enter labelled pictures of earlier."""
    factory = _factory(HISTORY_PER_SECOND, seed)
    say(f"drawing {count:,} pictures")
    factory.archive(
        draw_history(seed, count),
        per_second=HISTORY_PER_SECOND,
        until_ms=to_ms(SystemClock().now()) - 2000,
        name="history",
    )
    factory.stop()
    say(f"entered: {factory.counts.events:,} events, {factory.counts.archived:,} labels")


@app.command()
def run(
    seconds: Annotated[float, typer.Option(help="How long.", min=1)] = 60.0,
    light: Annotated[Lamps, typer.Option(help="The light at the stations.")] = Lamps.NORMAL,
    camera: Annotated[
        Cameras, typer.Option(help="Out of focus, of another make, or with a dirty lens.")
    ] = Cameras.GOOD,
    station: Annotated[Stations, typer.Option(help="Whose camera it is.")] = Stations.ALL,
    rate: Annotated[float, typer.Option(help="Pictures per second.", min=1, max=200)] = 36.0,
    seed: int = 1,
) -> None:
    """Let the line run."""
    clock, right = SystemClock(), list[bool]()
    factory = _factory(rate, seed, right)
    factory.light = CHANGED if light is Lamps.CHANGED else NORMAL
    affected = STATIONS if station is Stations.ALL else (station.value,)
    factory.cameras = dict.fromkeys(affected, _CAMERAS[camera])
    factory.start()
    end = clock.monotonic() + seconds
    try:
        while clock.monotonic() < end:
            clock.sleep(min(5.0, max(0.0, end - clock.monotonic())))
            last = right[-round(5 * rate) :]
            share = f"{sum(last) / len(last):.2f}" if last else "-"
            say(f"{factory.counts.events:,} events, {factory.counts.answered:,} answers, accuracy of the last {share}")
    except KeyboardInterrupt:
        pass
    finally:
        factory.stop()


@app.command()
def desks(count: Annotated[int, typer.Option(help="How many phones.", min=1)] = 300, seed: int = 1) -> None:
    """Let five desks label phones, four desks each; two of them call dirt a scratch."""
    settings, clock, resource = load_settings()[0], SystemClock(), load(RESOURCE)
    delivery = Delivery(settings.require_kafka(), clock)
    inspector = Inspector(resource, settings.endpoint, clock, lambda _: None) if settings.endpoint else None
    phones = draw_checked(seed, count)
    try:
        check(resource, phones, delivery=delivery, inspector=inspector, clock=clock)
    finally:
        if inspector is not None:
            inspector.close()
        delivery.close()
    say(f"{count:,} phones and {4 * count:,} labels sent; see `tidemill labels agreement phone-inspection`")


@app.command()
def picture(
    file: Annotated[Path, typer.Argument(help="Where to write it (JPEG).")],
    scratched: Annotated[bool, typer.Option("--scratched", help="With a scratch.")] = False,
    seed: int = 1,
) -> None:
    """Draw a phone."""
    (drawn,) = render(np.random.default_rng(seed), STATIONS[:1], NORMAL, scratched=float(scratched))
    file.write_bytes(drawn.jpeg)
    say(f"{file}: {drawn.defect}" + (f", box {list(drawn.box)}" if drawn.box else ""))


def _factory(rate: float, seed: int, right: list[bool] | None = None) -> Factory:
    def take(inspected: Inspected) -> None:
        if right is not None:
            right.append(inspected.right)

    settings, _ = load_settings()
    kafka, endpoint = settings.require_kafka(), settings.endpoint or ""
    return Factory(
        load(RESOURCE), kafka=kafka, endpoint=endpoint, rate=rate, seed=seed, clock=SystemClock(), on_answer=take
    )


if __name__ == "__main__":
    try:
        app()
    except TidemillError as error:
        show_error(error)
        raise SystemExit(error.exit_code) from None
