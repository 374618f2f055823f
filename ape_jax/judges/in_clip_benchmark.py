"""Runs as a model type of clip_benchmark's own command, https://github.com/LAION-AI/CLIP_benchmark.

clip_benchmark 1.6 has no place for plugins: its command takes the model types of a table
(`clip_benchmark.models.TYPE2FUNC`), which `register` adds to. All that follows, from reading the
data to the result file, is its own code.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ape_jax.errors import UserError, install
from ape_jax.judges import as_open_clip

MODEL_TYPE = "ape_jax"
_OWN = {
    "--model_type": MODEL_TYPE,
    "--pretrained": MODEL_TYPE,
    # The default has the model's name in the file's, which a directory cannot be.
    "--output": "{model}/clip_benchmark_{dataset}_{language}_{task}.json",
}


def arguments(argv: Sequence[str]) -> list[str]:
    """The command's arguments with our defaults put first, where later ones replace them.

    Example:
      >>> arguments(["eval", "--model=runs/x", "--dataset=cifar10"])[:3]
      ['eval', '--model_type=ape_jax', '--pretrained=ape_jax']
      >>> arguments(["eval", "--model_type", "open_clip"])
      ['eval', '--model_type', 'open_clip']

    Args:
      argv: as for `clip_benchmark`, without the program's name.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model_type", default=MODEL_TYPE)
    ours = parser.parse_known_args(argv)[0].model_type == MODEL_TYPE
    if not ours or list(argv[:1]) != ["eval"]:
        return list(argv)
    return ["eval", *(f"{name}={value}" for name, value in _OWN.items()), *argv[1:]]


def load(
    model_name: str,
    pretrained: str = MODEL_TYPE,
    cache_dir: str | None = None,
    device: Any = "cpu",
    *,
    double: bool = True,
) -> tuple[Any, Any, Any]:
    """Loads a model for clip_benchmark: the model, its transform and its tokenizer.

    Args:
      model_name: the directory of a run, or what was exported of it as `jax`.
      pretrained: `ape_jax`; a run has its own weights.
      cache_dir: not used, nothing is fetched.
      device: of the scale; embeddings have the device of what is encoded.
      double: whether embeddings are f64. Under autocast, which the command turns on by default,
        products of f32 tensors are in bf16: scores would be rounded to three digits, and tie.
        Those of f64 tensors are left alone.

    Raises:
      UserError: as `as_open_clip`, or for another `pretrained`.
    """
    if pretrained != MODEL_TYPE:
        raise UserError(
            f"--pretrained: a run has its own weights, found {pretrained!r}; leave it out"
        )
    try:
        model = as_open_clip(model_name).to(device)
    except UserError as error:  # Our own commands take the directory as --workdir.
        raise UserError(f"--model: {str(error).removeprefix('--workdir: ')}") from error
    return (model.double() if double else model), model.transform, model.tokenizer


def register(*, double: bool = True) -> None:
    """Adds the model type `ape_jax` to clip_benchmark; doing so again does no harm.

    Args:
      double: as for `load`.

    Raises:
      UserError: clip_benchmark or something that it needs is not installed.
    """
    _import("torchvision")
    types = _import("clip_benchmark.models")
    types.TYPE2FUNC[MODEL_TYPE] = functools.partial(load, double=double)
    if MODEL_TYPE not in types.MODEL_TYPES:
        types.MODEL_TYPES.append(MODEL_TYPE)
    # Its accuracy ends in float(array of shape [1]), which numpy refuses from 2.4 on.
    metrics = _import("clip_benchmark.metrics.zeroshot_classification")
    metrics.float = lambda x: float(x.item()) if hasattr(x, "item") else float(x)


def run(argv: Sequence[str]) -> None:
    """clip_benchmark's command, which knows our model type.

    Args:
      argv: its arguments, as `arguments` takes them.

    Raises:
      UserError: as `register` and `load`, and for what clip_benchmark cannot fetch or read.
    """
    # A linear probe trains a layer of f32 on the embeddings.
    register(double=not {"linear_probe", "--task=linear_probe"} & set(argv))
    # Workers of a data loader open and transform images, with Pillow and numpy alone.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    sys.argv[1:] = arguments(argv)
    main = _import("clip_benchmark.cli").main
    try:
        main()
    except UserError:
        raise
    except (OSError, ValueError) as error:  # No network, no such set.
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"clip_benchmark ended with: {said}") from error


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which clip_benchmark's command needs; "
            f"run {install('judges')}"
        ) from error
    except RuntimeError as error:
        if name != "torchvision" or "operator torchvision::" not in str(error):
            raise
        return _torchvision_without_operators()


def _torchvision_without_operators() -> Any:
    """torchvision where its compiled part was made for another build of torch.

    The package index has it for CUDA only, and torch may be the CPU's. What is compiled are box
    operators, which no evaluation uses, but their names have to be known when it is imported.
    """
    import torch

    print(
        f"torchvision's compiled operators do not fit torch {torch.__version__} and are left out; "
        "no evaluation of clip_benchmark uses them",
        file=sys.stderr,
    )
    for part in [part for part in sys.modules if part.split(".")[0] == "torchvision"]:
        del sys.modules[part]
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", schema)
    return importlib.import_module("torchvision")
