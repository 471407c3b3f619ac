"""The electricity market by hand: `python examples/electricity_market/market.py --help`.

compare     Tidemill's loop beside other ways to answer, on the same rows, every label a day late
"""

from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from electricity.compare import compare as played
from electricity.rows import read_market

from tidemill.cli.output import say, show_error
from tidemill.core.errors import TidemillError
from tidemill.spec.load import load

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
RESOURCE = Path(__file__).with_name("market.yaml")


@app.callback()
def main() -> None:
    """The New South Wales electricity market, 1996 to 1998."""


@app.command()
def compare(
    data: Annotated[Path, typer.Option(help="The market's CSV, elec.csv.")],
    rows: Annotated[int | None, typer.Option(help="Only so many of its first rows.", min=100)] = None,
    since: Annotated[int | None, typer.Option(help="First scored row; default: after a quarter of them.")] = None,
    seeds: Annotated[int, typer.Option(help="How often those play that train a network.", min=1)] = 3,
    out: Annotated[Path, typer.Option(help="Where the table is written as JSON.")] = Path("electricity_market.json"),
) -> None:
    """Print the table, and write it."""
    torch.set_num_threads(1)  # so that seconds are of one core, and sums always in the same order
    market = read_market(data, load(RESOURCE), rows=rows)
    found = played(market, since=len(market) // 4 if since is None else since, seeds=seeds, say=typer.echo)
    for name, of in found.differences.items():
        typer.echo(f"the loop less {name}: {of.value:+.4f} ({of.low:+.4f} to {of.high:+.4f})")
    for goal, holds in found.goals.items():
        typer.echo(f"{goal}: {'yes' if holds else 'NO'}")
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    say(f"written: {out}")


if __name__ == "__main__":
    try:
        app()
    except TidemillError as error:
        show_error(error)
        raise SystemExit(error.exit_code) from None
