"""Trainers that are not torch's: two of scikit-learn, and River, which learns one row at a time.

`spec.model.trainer` names one of them: `learners:Linear`, `learners:Forest` or `learners:Online`; the codec is
`learners:Codec`. The file lies beside the resource, as any model's code does. See docs/how-to/bring-your-trainer.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidemill.training.protocols import Answer, Row, Tensors

FEATURES = ("price", "demand", "transfer")
CLASSES = ("down", "up")


class Codec:
    """Three numbers in, a class out; serving needs no more than NumPy."""

    def encode(self, rows: Sequence[Row]) -> Tensors:
        """Features, as (n, 3)."""
        return {"features": np.array([[row[name] for name in FEATURES] for row in rows], np.float32)}

    def decode(self, outputs: Mapping[str, Any]) -> list[Answer]:
        """The class with the larger share."""
        return [
            {"class": CLASSES[int(share.argmax())], "confidence": float(min(1.0, share.max()))}
            for share in outputs["probabilities"]
        ]

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> Tensors:
        """The class's number."""
        return {"class": np.array([CLASSES.index(label["direction"]) for label in labels], np.int64)}


class Linear:
    """Logistic regression by scikit-learn's SGDClassifier, which starts from the champion's coefficients."""

    def fit(self, inputs: Tensors, targets: Tensors, *, seed: int, before: Tensors | None) -> None:
        """Learn; both classes must be among the rows."""
        from sklearn.linear_model import SGDClassifier

        self._model = SGDClassifier(loss="log_loss", random_state=seed)
        start = {} if before is None else {"coef_init": before["coef"], "intercept_init": before["intercept"]}
        self._model.fit(inputs["features"].astype(np.float64), targets["class"], **start)

    def predict(self, inputs: Tensors) -> Tensors:
        """Shares of the classes."""
        return {"probabilities": self._model.predict_proba(inputs["features"])}

    def to_onnx(self) -> bytes:
        """By skl2onnx."""
        return _by_skl2onnx(self._model)

    def keep(self) -> Tensors:
        """The coefficients."""
        return {"coef": self._model.coef_, "intercept": self._model.intercept_}


class Forest:
    """A random forest. It cannot go on learning: declare `warmStart: false`, so that it learns from all rows."""

    def fit(self, inputs: Tensors, targets: Tensors, *, seed: int, before: Tensors | None) -> None:
        """Learn anew."""
        from sklearn.ensemble import RandomForestClassifier

        self._model = RandomForestClassifier(50, min_samples_leaf=5, random_state=seed)
        self._model.fit(inputs["features"], targets["class"])

    def predict(self, inputs: Tensors) -> Tensors:
        """Shares of the classes."""
        return {"probabilities": self._model.predict_proba(inputs["features"])}

    def to_onnx(self) -> bytes:
        """By skl2onnx."""
        return _by_skl2onnx(self._model)

    def keep(self) -> Tensors:
        """Nothing."""
        return {}


class Online:
    """River's logistic regression over scaled features. It goes on where the champion was, weights and scales."""

    def fit(self, inputs: Tensors, targets: Tensors, *, seed: int, before: Tensors | None) -> None:
        """Learn each row once, oldest first, as it would have live."""
        from river.linear_model import LogisticRegression
        from river.preprocessing import StandardScaler

        scaler: Any = StandardScaler()
        model: Any = LogisticRegression()
        self._scaler, self._model = scaler, model
        if before is not None:
            self._go_on(before)
        for row, target in zip(inputs["features"].astype(np.float64), targets["class"], strict=True):
            x = dict(zip(FEATURES, row.tolist(), strict=True))
            scaler.learn_one(x)
            model.learn_one(scaler.transform_one(x), bool(target))

    def predict(self, inputs: Tensors) -> Tensors:
        """River's own answers, row by row."""
        rows = [dict(zip(FEATURES, row.tolist(), strict=True)) for row in inputs["features"].astype(np.float64)]
        up = [self._model.predict_proba_one(self._scaler.transform_one(row)).get(True, 0.5) for row in rows]
        return {"probabilities": np.stack([1 - np.array(up), np.array(up)], axis=1)}

    def to_onnx(self) -> bytes:
        """The same arithmetic as three nodes: the scales are folded into the weights."""
        from onnx import TensorProto, helper, numpy_helper

        kept: dict[str, Any] = self.keep()
        # River divides by 1 where a feature has not varied yet, and gives 0.
        scale = np.where(kept["variances"] > 0, 1 / np.sqrt(np.where(kept["variances"] > 0, kept["variances"], 1)), 0)
        slope = kept["weights"] * scale
        offset = kept["intercept"] - (slope * kept["means"]).sum()
        # Two columns, of which the softmax is the logistic function: log-odds 0 and z.
        weights = np.stack([np.zeros_like(slope), slope], axis=1).astype(np.float32)
        bias = np.array([0, offset[0]], np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Gemm", ["features", "weights", "bias"], ["odds"]),
                helper.make_node("Softmax", ["odds"], ["probabilities"], axis=1),
            ],
            "online",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(FEATURES)])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(CLASSES)])],
            [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return bytes(model.SerializeToString())

    def keep(self) -> Tensors:
        """Weights, and what the scaler has counted."""
        model, scaler = self._model, self._scaler
        columns = {
            "weights": [model.weights.get(name, 0.0) for name in FEATURES],
            "intercept": [model.intercept],
            "counts": [scaler.counts[name] for name in FEATURES],
            "means": [scaler.means[name] for name in FEATURES],
            "variances": [scaler.vars[name] for name in FEATURES],
        }
        return {name: np.array(values, np.float64) for name, values in columns.items()}

    def _go_on(self, before: Tensors) -> None:
        known = {name: array.tolist() for name, array in before.items()}
        for name, weight in zip(FEATURES, known["weights"], strict=True):
            self._model._weights[name] = weight  # River has no public way to begin with weights
        self._model.intercept = known["intercept"][0]
        self._scaler.counts.update(dict(zip(FEATURES, map(int, known["counts"]), strict=True)))
        self._scaler.means.update(zip(FEATURES, known["means"], strict=True))
        self._scaler.vars.update(zip(FEATURES, known["variances"], strict=True))


def _by_skl2onnx(model: Any) -> bytes:
    """The model with one input, `features`, and the outputs `label` and `probabilities`."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    made = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    return bytes(made.SerializeToString())
