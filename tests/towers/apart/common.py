"""What the scripts of this folder share: they run apart, where timm and torchvision are.

torchvision's compiled operators may have been made for another build of torch; what is compiled are
box operators, which nothing here uses, but their names have to be known when it is imported.
"""

import importlib
import sys
import types

import torch

try:
    importlib.import_module("torchvision")
except RuntimeError:
    for part in [part for part in sys.modules if part.split(".")[0] == "torchvision"]:
        del sys.modules[part]
    for operator in ("nms", "qnms"):
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{operator}", schema)
    importlib.import_module("torchvision")

# Mends broken texts, which we take as they are; open_clip need not be installed with it.
sys.modules["ftfy"] = types.ModuleType("ftfy")
sys.modules["ftfy"].fix_text = lambda text: text
timm = importlib.import_module("timm")
open_clip = importlib.import_module("open_clip")


def randomize(module, seed=0):
    """Makes every parameter random: zero biases and unit scales would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if parameter.ndim == 1:
                parameter.add_(0.5)
