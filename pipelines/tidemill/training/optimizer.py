"""AdamW as torch's own function, without torch's optimizer class.

`torch.optim.Optimizer` imports torch's compiler on its first step, which takes 2-4 s and which nothing here uses.
`torch.optim.adamw.adamw` is the same arithmetic (Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019,
algorithm 2) and takes its state as arguments; this class holds it. A test compares both.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["AdamW"]

_FUSED = frozenset({"cpu", "cuda", "mps"})
"""Devices on which torch moves all parameters in one pass: less time, and on a GPU one launch for dozens."""


class AdamW:
    """AdamW with torch's defaults: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01.

    Args:
        parameters: the module's; those that get no gradient stay as they are.
        lr: learning rate, in `param_groups[0]["lr"]` as torch's own optimizers have it.
    """

    def __init__(self, parameters: "Iterable[torch.nn.Parameter]", lr: float) -> None:
        import torch

        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._fused = all(each.is_floating_point() and each.device.type in _FUSED for each in self._parameters)
        self._mean = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [
            torch.zeros((), dtype=torch.float32, device=parameter.device if self._fused else "cpu")
            for parameter in self._parameters
        ]
        self.param_groups: list[dict[str, Any]] = [{"params": self._parameters, "lr": lr}]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move the parameters by their gradients."""
        import torch
        from torch.optim.adamw import adamw

        moved = [number for number, parameter in enumerate(self._parameters) if parameter.grad is not None]
        with torch.no_grad():
            adamw(
                [self._parameters[number] for number in moved],
                [self._parameters[number].grad for number in moved],  # type: ignore[misc]
                [self._mean[number] for number in moved],
                [self._square[number] for number in moved],
                [],
                [self._steps[number] for number in moved],
                foreach=False,
                fused=self._fused,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.param_groups[0]["lr"],
                weight_decay=0.01,
                eps=1e-8,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """The state as torch's optimizers give it: by parameter number, and the groups."""
        state = {
            number: {"step": step, "exp_avg": mean, "exp_avg_sq": square}
            for number, (step, mean, square) in enumerate(zip(self._steps, self._mean, self._square, strict=True))
        }
        groups = [{"lr": self.param_groups[0]["lr"], "params": list(range(len(self._parameters)))}]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for number, known in state["state"].items():
            for held, name in ((self._steps, "step"), (self._mean, "exp_avg"), (self._square, "exp_avg_sq")):
                held[number].copy_(known[name])
        self.param_groups[0]["lr"] = state["param_groups"][0]["lr"]
