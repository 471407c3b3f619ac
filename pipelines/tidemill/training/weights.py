"""Weights as safetensors, from which the next version's training starts. Nothing is unpickled."""

from typing import TYPE_CHECKING

from tidemill.core.errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    import torch

__all__ = ["load_weights", "save_weights"]

_SHOWN = 3


def save_weights(module: "torch.nn.Module") -> bytes:
    """The module's parameters and buffers as a safetensors file."""
    from safetensors.torch import save

    # A clone each: modules may tie weights, which the format does not know.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    return save(tensors)


def load_weights(module: "torch.nn.Module", content: bytes, *, new_classes: int = 0) -> None:
    """Put weights into a module; raises `InvalidInput` naming what does not fit, `Corrupt` for other bytes.

    Args:
        module: takes the weights.
        content: a safetensors file.
        new_classes: how many classes the module has more than the weights know. A parameter or buffer whose first
            dimension has grown by so many takes the rows that there are; those of the new classes, the last, keep the
            values that the module began with.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Corrupt(f"these are no weights (safetensors): {error}") from error
    expected = module.state_dict()
    if new_classes:
        found = {name: _grown(tensor, expected.get(name), new_classes) for name, tensor in found.items()}
    wrong = [
        f"{name} is {tuple(found[name].shape)}, now {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    wrong += [f"{name} is not there" for name in expected if name not in found]
    wrong += [f"{name} is not in the module any more" for name in found if name not in expected]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InvalidInput(
            f"the champion's weights do not fit the module: {'; '.join(wrong[:_SHOWN])}{more}",
            hint="set spec.model.warmStart to false where the module has changed",
        )
    module.load_state_dict(found)


def _grown(known: "torch.Tensor", fresh: "torch.Tensor | None", new_classes: int) -> "torch.Tensor":
    """The known rows followed by the fresh ones of new classes; as it is where its rows are not one more for each."""
    import torch

    if fresh is None or not known.ndim or known.shape[1:] != fresh.shape[1:]:
        return known
    if fresh.shape[0] != known.shape[0] + new_classes:
        return known
    return torch.cat([known, fresh[known.shape[0] :].to(known)])
