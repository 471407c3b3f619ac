"""The retrain pipeline: claim, snapshot, validate, train, evaluate, gate, register, propose.

One KFP pipeline (`pipeline`, compiled to pipelines/retrain.yaml) for the cluster and for one machine (`local`). A
component's body is three lines that call one function of `entry`, which gets what the step needs and runs it.
"""

from tidemill.control.runs import COMPILED

__all__ = ["COMPILED"]
