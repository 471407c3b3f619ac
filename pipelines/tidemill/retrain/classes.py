"""The classes of a run: those that are known, and those that it adopts because enough labels state them."""

import polars as pl

from tidemill.artifacts.classes import as_known
from tidemill.core.errors import InvalidInput
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.spec.model import ContinualModel
from tidemill.training.classes import stated
from tidemill.training.user_code import CLASSES, load_codec, takes_classes

__all__ = ["classes_of_run", "needs_classes"]


def classes_of_run(
    place: Place,
    grant: Grant,
    events: pl.LazyFrame,
    labels: pl.LazyFrame,
    predictions: pl.LazyFrame | None,
    *,
    as_of: int,
) -> tuple[ContinualModel, tuple[str, ...]]:
    """The resource with the run's classes, and those among them that are new with it.

    Code that is not told its classes has the declared ones, always: others it could neither answer nor learn.
    """
    declared, trigger = place.resource, place.resource.spec.triggers.new_class
    known = as_known(declared, grant.champion_artifact)
    if trigger is None and known == declared:
        return declared, ()
    if not takes_classes(load_codec(declared.spec.model.codec)):
        return declared, ()
    if trigger is None:
        return known, ()
    least = trigger.min_examples
    found = stated(events, labels, known, as_of=as_of, least=least, predictions=predictions)
    adopted = tuple(name for name, examples in found.items() if examples >= least)
    for name, examples in found.items():
        does = "is adopted" if name in adopted else f"waits for {least} examples"
        print(f"class {name}: {examples} examples; it {does}", flush=True)
    return known.with_classes((*known.spec.prediction.classes, *adopted)), adopted


def needs_classes(resource: ContinualModel) -> None:
    """Raise `InvalidInput` where the resource wants new classes to be learnt, and its Codec is not told its classes."""
    path = resource.spec.model.codec
    if not takes_classes(load_codec(path)):
        raise InvalidInput(
            f"triggers.newClass lets classes come that nobody declared, and {path} has no attribute {CLASSES}",
            hint=f"give Codec and Trainer `{CLASSES}: tuple[str, ...] = ()`, which is set before they are used",
        )
