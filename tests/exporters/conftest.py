"""Small towers of every family on disk, all parameters random, and images that want care."""

import dataclasses
import functools
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from PIL import Image

from ape_jax import config as config_lib
from ape_jax.align.languages import Languages
from ape_jax.align.tuning.selection import flatten
from ape_jax.images.decode import load_image
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.runs.aligned import AlignedModel

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
IMAGE = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT = {**SIZES, "vocab_size": 18, "intermediate_size": 64, "max_position_embeddings": 16}
CONVNET = {"hidden_sizes": [8, 32], "depths": [1, 2], "image_size": 32}


def _classes():
    import transformers as t

    mlp = {"intermediate_size": 64}
    return {
        "dinov2": (t.Dinov2Model, t.Dinov2Config(**IMAGE, mlp_ratio=2)),
        "bert": (t.BertModel, t.BertConfig(**TEXT)),
        "vit": (t.ViTModel, t.ViTConfig(**IMAGE, **mlp)),
        "deit": (t.DeiTModel, t.DeiTConfig(**IMAGE, **mlp)),
        "registers": (
            t.Dinov2WithRegistersModel,
            t.Dinov2WithRegistersConfig(**IMAGE, mlp_ratio=2, use_swiglu_ffn=True),
        ),
        "dinov3": (t.DINOv3ViTModel, t.DINOv3ViTConfig(**IMAGE, **mlp)),
        "dinov3, gated": (
            t.DINOv3ViTModel,
            t.DINOv3ViTConfig(**IMAGE, **mlp, use_gated_mlp=True, num_register_tokens=2),
        ),
        "radio": (t.RadioModel, t.RadioConfig(**IMAGE, mlp_ratio=2.0, max_img_size=72)),
        "pixio": (t.PixioModel, t.PixioConfig(**IMAGE, mlp_ratio=2)),
        "mlcd": (t.MLCDVisionModel, t.MLCDVisionConfig(**IMAGE, **mlp)),
        "aimv2": (t.Aimv2VisionModel, t.Aimv2VisionConfig(**IMAGE, **mlp)),
        "vit_mae": (t.ViTMAEModel, t.ViTMAEConfig(**IMAGE, **mlp)),
        "vit_msn": (t.ViTMSNModel, t.ViTMSNConfig(**IMAGE, **mlp)),
        "ijepa": (t.IJepaModel, t.IJepaConfig(**IMAGE, **mlp)),
        "tipsv2": (t.Tipsv2VisionModel, t.Tipsv2VisionConfig(**IMAGE, mlp_ratio=2.2)),
        "blip": (t.BlipVisionModel, t.BlipVisionConfig(**IMAGE, **mlp)),
        "convnext": (t.ConvNextModel, t.ConvNextConfig(**CONVNET, num_stages=2)),
        "convnextv2": (t.ConvNextV2Model, t.ConvNextV2Config(**CONVNET, num_stages=2)),
        "dinov3_convnext": (t.DINOv3ConvNextModel, t.DINOv3ConvNextConfig(**CONVNET)),
        "beit": (t.BeitModel, t.BeitConfig(**IMAGE, **mlp, use_relative_position_bias=True)),
        "clip": (t.CLIPVisionModel, t.CLIPVisionConfig(**IMAGE, **mlp)),
        "siglip": (t.SiglipVisionModel, t.SiglipVisionConfig(**IMAGE, **mlp)),
        "clip_text": (t.CLIPTextModel, t.CLIPTextConfig(**TEXT, eos_token_id=3)),
        "roberta": (t.RobertaModel, t.RobertaConfig(**TEXT, pad_token_id=1)),
        "mpnet": (t.MPNetModel, t.MPNetConfig(**TEXT)),
        "electra": (t.ElectraModel, t.ElectraConfig(**TEXT, embedding_size=24)),
        "albert": (t.AlbertModel, t.AlbertConfig(**TEXT, embedding_size=24)),
        "deberta": (
            t.DebertaV2Model,
            t.DebertaV2Config(
                **TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8,
                norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False,
            ),
        ),
        "t5": (
            t.T5EncoderModel,
            t.T5Config(
                d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=3, vocab_size=18,
                n_positions=16, feed_forward_proj="gated-gelu",
            ),
        ),
        "qwen3": (
            t.Qwen3Model,
            t.Qwen3Config(
                **TEXT, num_key_value_heads=2, head_dim=16, use_sliding_window=True,
                sliding_window=3, max_window_layers=1, pad_token_id=0,
            ),
        ),
        "gemma3": (
            t.Gemma3TextModel,
            t.Gemma3TextConfig(
                **TEXT, num_key_value_heads=2, head_dim=16, sliding_window=4,
                sliding_window_pattern=2, use_bidirectional_attention=True, pad_token_id=0,
            ),
        ),
        "megatron": (t.MegatronBertModel, t.MegatronBertConfig(**TEXT)),
        "distilbert": (
            t.DistilBertModel,
            t.DistilBertConfig(
                dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=18,
                max_position_embeddings=16,
            ),
        ),
    }  # fmt: skip


@pytest.fixture(scope="session")
def zoo(tiny, tmp_path_factory):
    """`zoo("mpnet")` is the directory of such a tower, all of its parameters random.

    `zoo("demo:minilm")` is what it says.
    """
    import torch

    root, classes = tmp_path_factory.mktemp("zoo"), _classes()

    def directory(name):
        if name.startswith("demo:"):
            return name
        path = root / name
        if not path.exists():
            model_class, config = classes[name]
            model, generator = model_class(config), torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            model.save_pretrained(path)
            side, files = "text", ("tokenizer.json", "tokenizer_config.json")
            if hasattr(config, "image_size"):
                side, files = "image", ("preprocessor_config.json",)
            for file in files:
                shutil.copy(tiny / side / file, path)
        return path

    return directory


@pytest.fixture(scope="session")
def inputs(tiny, tmp_path_factory):
    """Paths of images and texts of mixed lengths, the last longer than the towers take."""
    root = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    ramp = rng.integers(0, 256, (50, 41, 4), np.uint8)
    Image.fromarray(ramp).save(root / "transparent.png")
    Image.fromarray(ramp[..., 0].astype(np.uint16) * 257).save(root / "grey16.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees.
    Image.fromarray(ramp[..., :3]).save(root / "turned.jpg", exif=exif)
    images = [*sorted(root.glob("*")), tiny / "red-square.png", tiny / "blue-bar.png"]
    texts = ["red", "a blue circle", "the picture of a yellow triangle", "a", "black bar " * 12]
    return SimpleNamespace(images=[str(path) for path in images], texts=texts)


SCRIPTS = (("Latin", 1), ("Cyrillic", 2))
"""Rows of the means that an export's texts are told to have."""


@pytest.fixture(scope="session")
def made(zoo):
    """`made({"image.tune": "adapter"}, image="clip")`: a run whose parameters are all random."""

    def make(settings, image="dinov2", text="bert", solved=None):
        flat = {
            "image.tower": str(zoo(image)),
            "text.tower": str(zoo(text)),
            "image.dtype": "float32",
            "text.dtype": "float32",
            "data.pairs": "pairs.jsonl",
            **settings,
        }
        config = config_lib.resolve(flat)
        towers = build.load_towers(config)
        model = build.make_model(config, towers, solved)
        if config.data.language:
            known = Languages(names=(("en", 1), ("ru", 2)), scripts=SCRIPTS, count=3)
            model = dataclasses.replace(model, languages=known)
        return _made(config, model, *_parameters(model, towers.params))

    return make


def _parameters(model, towers):
    """The model's two trees without `init`, which takes seconds to compile.

    Nothing that is trained is zero, nor a norm the identity; what is frozen is the towers' own, and
    what is trained of a real tower is near to it.
    """
    trainable, frozen = jax.eval_shape(functools.partial(model.init, 0), towers)
    rng = np.random.default_rng(0)

    def drawn(name, leaf):
        values = 0.1 * rng.normal(size=leaf.shape) + name.endswith(("scale", "variance"))
        return jnp.asarray(values, jnp.float32)

    def moved(spec, own):
        own = own if spec.startswith("demo:") else {}

        def move(name, leaf):
            if name not in own:
                return drawn(name, leaf)
            start = own[name][: leaf.shape[0]].reshape(leaf.shape)
            return start * jnp.asarray(1 + 0.02 * rng.normal(size=leaf.shape), jnp.float32)

        return move

    def kept(own):
        return lambda name, leaf: own[name][: leaf.shape[0]].reshape(leaf.shape)

    draw = {}
    for side in ("image", "text"):
        name = f"{side}_tower"
        own = flatten(towers[name])
        frozen[name] = _mapped(kept(own), frozen.get(name, {}))
        draw[name] = moved(getattr(model, side).tower.spec, own)
    statistics = {}
    if "center" in frozen.get("statistics", {}):
        width = frozen["statistics"]["center"].shape
        center = jnp.asarray(rng.normal(size=width), jnp.float32)
        statistics = {"center": center, "spread": jnp.exp(0.3 * center[::-1])}
    if model.languages is not None:
        shape = frozen["statistics"]["languages"].shape
        statistics["languages"] = jnp.asarray(rng.normal(size=shape), jnp.float32)
    if model.weights:
        statistics["weights"] = jnp.linspace(1.0, 0.1, model.weights)
    if statistics:
        frozen["statistics"] = statistics
    trainable["loss"] = {**trainable["loss"], "log_scale": jnp.float32(2.0)}
    values = {name: _mapped(draw.get(name, drawn), tree) for name, tree in trainable.items()}
    return values, frozen


def _mapped(function, tree):
    """A tree of `function(name, leaf)`."""
    flat = {name: function(name, leaf) for name, leaf in flatten(tree).items()}
    return unflatten_dict(flat, sep="/")


class Made(AlignedModel):
    """A model that encodes without a mesh and batches of a fixed size."""

    def encode_images(self, paths):
        def encode(trainable, frozen, batch):
            features = self.model.image_features(frozen, batch)
            return self.model.embed(trainable, frozen, features)

        transform = self.model.image.tower.prepare.transform
        batch = {"image": np.stack([transform(load_image(path)) for path in paths])}
        return np.asarray(jax.jit(encode)(self.trainable, self.frozen, batch))

    def encode_texts(self, captions):
        def encode(trainable, frozen, batch):
            features = self.model.text_features(frozen, batch)
            return self.model.embed(trainable, frozen, features)

        batch = dict(self.model.text.tower.prepare(captions))
        if self.model.languages is not None:
            batch["language"] = self.model.languages.rows(captions).astype(np.int32)
        return np.asarray(jax.jit(encode)(self.trainable, self.frozen, batch))


def _made(config, model, trainable, frozen):
    return Made(
        config=config,
        model=model,
        trainable=trainable,
        frozen=frozen,
        meta={},
        mesh=mesh_lib.make_mesh(1),
        summary={"eval/x/i2t_r1": 0.5},
    )
