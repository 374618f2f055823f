"""Torch on the same device: in which forms it is fair, and what memory it takes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from tests.accelerator.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """A way to run torch.

    Attributes:
      name: such as 'torch bfloat16 compiled'.
      dtype: of the products, 'float32' or 'bfloat16'.
      precision: of products in float32: 'highest', or 'high', which is TF32 on a GPU.
      compiled: whether through `torch.compile`.
    """

    name: str
    dtype: str
    precision: str = "highest"
    compiled: bool = False

    @property
    def is_fair(self) -> bool:
        """Whether its products are as exact as ours of that dtype, which know no TF32."""
        return self.precision == "highest"

    def compile(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The function or module as it is run."""
        import torch

        return torch.compile(call, dynamic=False) if self.compiled else call

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Sets the precision of float32."""
        import torch

        torch.set_float32_matmul_precision(self.precision)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision("highest")


def device(settings: Settings) -> str:
    """The name of the device for torch, '' where torch is not there or has no such device."""
    if importlib.util.find_spec("torch") is None or settings.device == "tpu":
        return ""
    import torch

    if settings.device == "cpu":
        return "cpu"
    return "cuda" if torch.cuda.is_available() else ""


def missing(settings: Settings) -> str:
    """Why torch is not compared with, '' where it is."""
    return "" if device(settings) else "torch is not there, or has no such device"


def forms(settings: Settings, dtype: str) -> list[Form]:
    """Every form for products of a dtype; compiled ones on a GPU alone."""
    found = []
    for compiled in (False, True) if settings.device == "gpu" else (False,):
        end = " compiled" if compiled else ""
        found.append(Form(name=f"torch {dtype}{end}", dtype=dtype, compiled=compiled))
        if dtype == "float32" and settings.device == "gpu":
            name = f"torch tf32{end}"
            found.append(Form(name=name, dtype=dtype, precision="high", compiled=compiled))
    return found


def models(
    settings: Settings, dtype: str, make: Callable[[Any], Any]
) -> dict[str, tuple[Form, Callable[..., Any]]]:
    """A model of torch in every form, for forward passes.

    Args:
      settings: of the part.
      dtype: 'float32' or 'bfloat16'.
      make: gives the module of a torch dtype, in evaluation mode.
    """
    if missing(settings):
        return {}
    import torch

    module = make(getattr(torch, dtype)).to(device(settings))

    def runs(form: Form) -> Callable[..., Any]:
        call = form.compile(module)

        def run(*args: Any, **more: Any) -> Any:
            with form.on(), torch.inference_mode():
                return call(*args, **more)

        return run

    return {form.name: (form, runs(form)) for form in forms(settings, dtype)}


@contextlib.contextmanager
def peak_memory(settings: Settings) -> Iterator[Callable[[], float | None]]:
    """Gives a function that tells by how many bytes torch's memory rose at most; None off a GPU."""
    if device(settings) != "cuda":
        yield lambda: None
        return
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield lambda: float(torch.cuda.max_memory_allocated() - before)


def free() -> None:
    """Gives back what torch holds and does not use, which JAX then can have."""
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
