"""The peer: a plain KServe model of the same network, without features, checks or a log.

python -m benchmarks.serving.bare onnx|torch FILE PORT

KServe's server as its own `start` makes it, but on the loopback interface and without a line of log for each request.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import uvicorn
from benchmarks.serving.mlp import CLASSES, FIELDS, weights

from tidemill.serving.kserve_import import kserve_parts
from tidemill.stack.ports import HOST

__all__ = ["NAME"]

NAME = "costs"
Scores = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def onnx_scores(file: str) -> Scores:
    """By ONNX Runtime, on one thread as ours."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["y"], {"x": rows})[0]


def torch_scores(file: str) -> Scores:
    """By torch, on one thread."""
    import torch

    torch.set_num_threads(1)
    layers: list[Any] = []
    for matrix, bias in weights():
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0])
        layer.weight.data, layer.bias.data = torch.from_numpy(matrix), torch.from_numpy(bias)
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(dim=1)).eval()

    def scores(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(rows)).numpy()  # type: ignore[no-any-return]

    return scores


def main(kind: str, file: str, port: str) -> None:
    """Serve until killed."""
    parts, scores = kserve_parts(), {"onnx": onnx_scores, "torch": torch_scores}[kind](file)

    class Bare(parts.Model):  # type: ignore[misc,name-defined]
        async def predict(self, payload: Any, headers: Any = None) -> Any:
            found = scores(np.array([[row[name] for name in FIELDS] for row in payload["instances"]], np.float32))
            best = found.argmax(1)
            return {
                "predictions": [
                    {"class": CLASSES[index], "confidence": float(row[index])}
                    for row, index in zip(found, best, strict=True)
                ]
            }

    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    model = Bare(NAME)
    model.ready = True
    server = parts.ModelServer(enable_grpc=False, workers=1, enable_latency_logging=False)
    server.register_model(model)
    app, extension = "kserve.model_server:app", server.model_repository_extension
    parts.RESTServer(app, server.dataplane, extension, int(port)).create_application()
    uvicorn.run(parts.app, host=HOST, port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:4])
