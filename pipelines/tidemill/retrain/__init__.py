"""The retrain pipeline: claim, snapshot, validate, train, evaluate, gate, register, propose.

One KFP pipeline (`pipeline`, compiled to pipelines/retrain.yaml) for the cluster and for one machine (`local`). A
component's body is three lines that call one function of `entry`, which gets what the step needs and runs it.
"""

from pathlib import Path

__all__ = ["COMPILED"]

_PLACES = (Path(__file__).parents[2] / "retrain.yaml", Path(__file__).with_name("retrain.yaml"))
COMPILED = next((path for path in _PLACES if path.is_file()), _PLACES[0])
"""The compiled pipeline: pipelines/retrain.yaml of the repository, which an installation has beside its code."""
