"""The marketplace by hand: `python examples/product_catalog/catalog.py --help`.

story       one day on a clock that is turned by hand, without a running stack: two kinds of products appear (2 min)
history     for a stack that runs: enter labelled products of earlier, from which the first version is trained
run         let sellers list products: to the events topic and to the endpoint, labels five to twenty seconds later
"""

import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from goods.live import Market
from goods.products import DECLARED, KINDS
from goods.story import tell

from tidemill.cli.output import say, show_error
from tidemill.core.clock import SystemClock
from tidemill.core.errors import InvalidInput, TidemillError
from tidemill.core.settings import Settings, load_settings
from tidemill.core.telemetry import setup_logging
from tidemill.spec.load import load

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
RESOURCE = Path(__file__).with_name("model.yaml")


@app.command()
def story(seed: int = 1) -> None:
    """Let one day pass, and print what it showed as JSON at the end."""
    setup_logging(Settings(log_level="warning"), "catalogue")
    with tempfile.TemporaryDirectory(prefix="catalogue-") as folder:
        result = tell(Path(folder), load(RESOURCE), seed=seed, say=say)
    typer.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())


@app.command()
def history(count: Annotated[int, typer.Option(help="How many products.", min=1)] = 5000, seed: int = 1) -> None:
    """Enter labelled products of earlier."""
    with _market(seed) as market:
        market.archive(count, _shares(()))
    say(f"entered: {count:,} events and labels")


@app.command()
def run(
    seconds: Annotated[float, typer.Option(help="How long.", min=1)] = 60.0,
    rate: Annotated[float, typer.Option(help="Products per second.", min=0.1, max=50)] = 5.0,
    new: Annotated[list[str] | None, typer.Option(help="Kinds that are new: smartwatch, earbuds.")] = None,
    disputed: Annotated[bool, typer.Option("--disputed", help="One desk takes the new kinds for phones.")] = False,
    seed: int = 1,
) -> None:
    """Let sellers list products."""
    kinds = tuple(new or ())
    if strange := [kind for kind in kinds if kind not in KINDS]:
        raise InvalidInput(f"there is no kind {strange[0]}", hint=f"there are {', '.join(KINDS)}")
    with _market(seed) as market:
        if disputed:
            market.desks.mistaken = dict.fromkeys(kinds, ("cleo", "phone"))
        market.run(seconds, rate, _shares(kinds))
        say(f"{market.listed:,} products, {market.answered:,} answers, {market.right:,} of them right")


def _shares(new: tuple[str, ...]) -> dict[str, float]:
    return dict.fromkeys(DECLARED, 1.0) | dict.fromkeys(new, 1.5)


def _market(seed: int) -> Market:
    settings = load_settings()[0]
    endpoint = settings.endpoint or ""
    return Market(load(RESOURCE), kafka=settings.require_kafka(), endpoint=endpoint, seed=seed, clock=SystemClock())


if __name__ == "__main__":
    try:
        app()
    except TidemillError as error:
        show_error(error)
        raise SystemExit(error.exit_code) from None
