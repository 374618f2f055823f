"""How models of torch are run here: device, number format, and arrays in and out."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """Where and in which number format a model runs.

    Attributes:
      device: of torch.
      dtype: "float32", or "bfloat16" for products in bfloat16 (torch's autocast).
      param_dtype: what the parameters are kept in, "float32" or "bfloat16".
    """

    device: Any
    dtype: str
    param_dtype: str

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Runs models without gradients."""
        import torch

        # Weights in bfloat16 bring their products there by themselves.
        cast = self.dtype == "bfloat16" and self.param_dtype == "float32"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=cast):
            yield

    def placed(self, model: Any) -> Any:
        """A model as it runs: on the device, in its number format, without dropout."""
        import torch

        kept = torch.bfloat16 if self.param_dtype == "bfloat16" else torch.float32
        # Parameters stay as they are in all else: without gradients torch sums in another order.
        return model.to(device=self.device, dtype=kept).eval()

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays or tensors of a batch on the device, floating ones in the parameters' format."""
        import torch

        placed = {}
        for name, value in batch.items():
            tensor = torch.as_tensor(value)
            if tensor.is_floating_point() and self.param_dtype == "bfloat16":
                tensor = tensor.to(torch.bfloat16)
            placed[name] = tensor.to(self.device)
        return placed

    def settings(self) -> dict[str, str]:
        """What of this features depend on; the device is not among it."""
        return {"compute dtype": self.dtype, "parameter dtype": self.param_dtype}


def running(dtype: str, param_dtype: str, device: Any) -> Running:
    """Checks the formats.

    Raises:
      UserError: for one that torch towers do not have; the message begins with the option.
    """
    for key, value in (("dtype", dtype), ("param_dtype", param_dtype)):
        if value not in ("float32", "bfloat16"):
            raise UserError(
                f"{key} is {value!r}; a tower that torch runs has 'float32' or 'bfloat16'"
            )
    return Running(device=device, dtype=dtype, param_dtype=param_dtype)


def array(tensor: Any) -> Float32[np.ndarray, "..."]:
    """A tensor as numbers in float32 on the host."""
    return tensor.detach().float().cpu().numpy()


def mask_array(tensor: Any) -> Bool[np.ndarray, "b t"]:
    """A mask on the host."""
    return tensor.detach().bool().cpu().numpy()


def count_parameters(model: Any) -> int:
    """Number of a model's parameters; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def takes(model: Any) -> tuple[str, ...]:
    """The names of what a model's `forward` takes."""
    return tuple(inspect.signature(model.forward).parameters)
