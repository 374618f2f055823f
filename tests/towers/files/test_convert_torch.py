"""Pickled checkpoints to safetensors, in the user's torch."""

import collections
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

import ape_jax
from ape_jax import UserError, towers
from ape_jax import config as config_lib
from ape_jax.runs import build, imported
from ape_jax.towers import aligned
from ape_jax.towers.files import convert_torch
from ape_jax.training import run as run_lib

WIDE = {"embeddings.word_embeddings": (18, 64), "embeddings.position_embeddings": (16, 64)}


ADAPTERS = (
    "visual_encoder.blocks.0.adapter1",
    "visual_encoder.blocks.0.adapter2",
    "text_encoder.encoder.layer.0.attention.output.adapter",
    "text_encoder.encoder.layer.0.output.adapter",
)


def lilt(adapters=()):
    """The tensors of `models/clip_adjustable.py` with towers of one block, all random."""
    shapes = {
        "visual_encoder.cls_token": (1, 1, 64),
        "visual_encoder.pos_embed": (1, 17, 64),
        "visual_encoder.patch_embed.proj.weight": (64, 3, 8, 8),
        "visual_encoder.patch_embed.proj.bias": (64,),
        "text_encoder.embeddings.position_ids": (1, 16),
        "temp": (),
    }
    linear = {"vision_proj": (24, 64), "text_proj": (24, 64)}
    norms = ["visual_encoder.norm", "text_encoder.embeddings.LayerNorm"]
    block, layer = "visual_encoder.blocks.0", "text_encoder.encoder.layer.0"
    linear |= {f"{block}.attn.qkv": (192, 64), f"{block}.attn.proj": (64, 64)}
    linear |= {f"{block}.mlp.fc1": (96, 64), f"{block}.mlp.fc2": (64, 96)}
    parts = [f"attention.self.{n}" for n in ("query", "key", "value")]
    linear |= {f"{layer}.{part}": (64, 64) for part in [*parts, "attention.output.dense"]}
    linear |= {f"{layer}.intermediate.dense": (96, 64), f"{layer}.output.dense": (64, 96)}
    norms += [f"{block}.norm1", f"{block}.norm2"]
    norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name in adapters:
        linear |= {f"{name}.down_sampler": (16, 64), f"{name}.up_sampler": (64, 16)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (64,), f"{name}.bias": (64,)}
    shapes |= {f"text_encoder.{name}.weight": shape for name, shape in WIDE.items()}
    generator = torch.Generator().manual_seed(0)
    tensors = {k: 0.2 * torch.randn(s, generator=generator) for k, s in shapes.items()}
    return {**tensors, "temp": torch.tensor(0.07)}


def test_tensors_are_written_as_they_are(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    state = collections.OrderedDict(a=shared, b=shared.T, c=torch.ones(2, dtype=torch.bfloat16))
    inner = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": inner, "epoch": 3}, tmp_path / "x.pt")
    said = convert_torch.convert(tmp_path / "x.pt", tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    assert found.keys() == {"a", "b", "c"} and found["c"].dtype.name == "bfloat16"
    np.testing.assert_array_equal(found["b"], shared.T.numpy())
    assert "being no tensors: epoch" in said[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_lilts_checkpoint_becomes_a_directory_of_two_towers(tmp_path, tiny):
    state = lilt()
    torch.save({"model": state}, tmp_path / "x.pth")
    out = tmp_path / "out"
    assert "LilT's" in convert_torch.convert(tmp_path / "x.pth", out)[-1]
    (out / "tokenizer.json").write_bytes((tiny / "text/tokenizer.json").read_bytes())
    image, text = (towers.load(out, kind=kind) for kind in ("image", "text"))
    assert (image.config.heads, image.config.image_size, image.config.norm_eps) == (1, 32, 1e-6)
    assert (text.config.types, text.config.depth, text.prepare.max_length) == (0, 1, 16)
    value = state["visual_encoder.blocks.0.attn.qkv.weight"][128:].T
    np.testing.assert_array_equal(image.params["blocks"]["attention"]["value"]["kernel"][0], value)


def by_hand(state, pixels, batch):
    """What LilT computes, written out: embeddings of images [B, 3, H, W] and of texts."""

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def adapted(x, name):
        if f"{name}.up_sampler.weight" not in state:
            return x
        return x + linear(F.gelu(linear(x, f"{name}.down_sampler")), f"{name}.up_sampler")

    def norm(x, name, eps):
        return F.layer_norm(x, (64,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(query, key, value, mask):  # One head of 64.
        logits = query @ key.transpose(1, 2) / 8 + (1.0 - mask[:, None].float()) * -1e4
        return logits.softmax(-1) @ value

    root, block = "visual_encoder", "visual_encoder.blocks.0"
    x = F.conv2d(
        pixels,
        state[f"{root}.patch_embed.proj.weight"],
        state[f"{root}.patch_embed.proj.bias"],
        stride=8,
    )
    x = torch.cat([state[f"{root}.cls_token"].tile(len(x), 1, 1), x.flatten(2).mT], 1)
    x = x + state[f"{root}.pos_embed"]
    branch = norm(adapted(x, f"{block}.adapter1"), f"{block}.norm1", 1e-6)
    qkv = linear(branch, f"{block}.attn.qkv").chunk(3, -1)
    x = x + linear(attend(*qkv, torch.ones(x.shape[:2])), f"{block}.attn.proj")
    branch = norm(adapted(x, f"{block}.adapter2"), f"{block}.norm2", 1e-6)
    hidden = F.gelu(linear(branch, f"{block}.mlp.fc1"))
    x = norm(x + linear(hidden, f"{block}.mlp.fc2"), f"{root}.norm", 1e-6)
    root, layer = "text_encoder.embeddings", "text_encoder.encoder.layer.0"
    y = state[f"{root}.word_embeddings.weight"][batch["ids"]]
    y = y + state[f"{root}.position_embeddings.weight"][: y.shape[1]]
    y = norm(y, f"{root}.LayerNorm", 1e-12)
    qkv = (linear(y, f"{layer}.attention.self.{n}") for n in ("query", "key", "value"))
    out = linear(attend(*qkv, torch.tensor(batch["mask"])), f"{layer}.attention.output.dense")
    out = adapted(out, f"{layer}.attention.output.adapter")
    y = norm(y + out, f"{layer}.attention.output.LayerNorm", 1e-12)
    hidden = F.gelu(linear(y, f"{layer}.intermediate.dense"))
    out = adapted(linear(hidden, f"{layer}.output.dense"), f"{layer}.output.adapter")
    y = norm(y + out, f"{layer}.output.LayerNorm", 1e-12)
    tops = linear(x[:, 0], "vision_proj"), linear(y[:, 0], "text_proj")
    return [F.normalize(z, dim=-1).numpy() for z in tops]


def converted(state, tmp_path, tiny):
    torch.save({"model": state}, tmp_path / "x.pth")
    convert_torch.convert(tmp_path / "x.pth", tmp_path / "out")
    (tmp_path / "out/tokenizer.json").write_bytes((tiny / "text/tokenizer.json").read_bytes())
    return tmp_path / "out"


@pytest.mark.parametrize("adapters", [(), ADAPTERS, ADAPTERS[:2], ADAPTERS[2:]])
def test_converted_lilt_gives_its_embeddings(tmp_path, tiny, adapters):
    state = lilt(adapters)
    ours = ape_jax.load(converted(state, tmp_path, tiny))
    images = [str(tiny / "red-square.png"), str(tiny / "blue-bar.png")]
    texts = ["a red square", "blue", "the picture of a yellow bar"]
    prepare = [towers.load(tmp_path / "out", kind=kind).prepare for kind in ("image", "text")]
    pixels = torch.tensor(prepare[0](images)["image"]).permute(0, 3, 1, 2)
    want = by_hand(state, pixels, prepare[1](texts))
    for got, other in zip((ours.encode_image(images), ours.encode_text(texts)), want):
        np.testing.assert_allclose(got, other, atol=1e-5)
    assert ours.scale == pytest.approx(1 / 0.07)


def run_config(path, tiny, **settings):
    heads = imported.config_settings(aligned.read(str(path)))
    own = {"image.tower": str(path), "text.tower": str(path), "start.model": str(path)}
    own |= {"data.pairs": str(tiny / "pairs.jsonl"), "train.batch": 16, "train.steps": 2}
    return config_lib.resolve({**heads, **own, **settings})


def test_training_goes_on_from_adapters(tmp_path, tiny):
    state = lilt(ADAPTERS)
    path = converted(state, tmp_path, tiny)
    config = run_config(path, tiny, **{"image.tune": "adapter+layernorm"})
    started = run_lib.assemble(config, build.load_towers(config)).trainable
    up = started["image_tower"]["blocks"]["norm2"]["adapter"]["up"]
    np.testing.assert_array_equal(up["kernel"][0], state[f"{ADAPTERS[1]}.up_sampler.weight"].T)
    np.testing.assert_array_equal(
        started["image_tower"]["blocks"]["norm1"]["scale"][0],
        state["visual_encoder.blocks.0.norm1.weight"],
    )
    down = started["text_tower"]["blocks"]["mlp"]["fc2"]["adapter"]["down"]
    np.testing.assert_array_equal(down["bias"][0], state[f"{ADAPTERS[3]}.down_sampler.bias"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image.tune": "layernorm"}, r"start\.model: .* write image\.tune='adapter'"),
        ({"peft.adapter_reduction": 8}, r"start\.model: .* write peft\.adapter_reduction=4"),
        ({"start.model": ""}, r"image\.tower: .* has adapters, .* write start\.model='"),
    ],
)
def test_adapters_are_not_left_behind(tmp_path, tiny, settings, words):
    config = run_config(converted(lilt(ADAPTERS), tmp_path, tiny), tiny, **settings)
    with pytest.raises(UserError, match=words) as error:
        run_lib.assemble(config, build.load_towers(config))
    assert "\n" not in str(error.value)


def test_half_an_adapter_is_refused_by_name(tmp_path, tiny):
    state = lilt(ADAPTERS)
    del state[f"{ADAPTERS[1]}.up_sampler.bias"]
    path = converted(state, tmp_path, tiny)
    with pytest.raises(UserError, match=r"blocks\.0\.adapter2\.up_sampler\.bias' is missing"):
        ape_jax.load(path)


def test_what_of_lilt_is_not_described_is_converted_alone(tmp_path):
    state = {**lilt(), "visual_encoder.blocks.0.gamma_1": torch.ones(2)}
    torch.save({"model": state}, tmp_path / "x.pth")
    assert "write a config.json" in convert_torch.convert(tmp_path / "x.pth", tmp_path / "out")[-1]


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: torch.save({"model": {"a": torch.ones(1)}, "c": Hostile()}, path), "print"),
        (lambda path: path.write_bytes(b"no pickle"), "no whole file of torch.save"),
        (lambda path: torch.save([1, 2], path), "no tensors by name"),
        (lambda path: torch.save({"epoch": 1}, path), "no tensors by name"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_refused_is_one_sentence(tmp_path, capsys, write, words):
    write(tmp_path / "x.pt")
    with pytest.raises(convert_torch.Refused, match=words) as error:
        convert_torch.convert(tmp_path / "x.pt", tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    assert capsys.readouterr().out == ""


def test_it_runs_as_a_file_without_the_rest(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    command = [sys.executable, "-P", convert_torch.__file__, str(tmp_path / "x.pt")]
    command.append(str(tmp_path / "out"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "1 tensors" in done.stdout


def test_an_error_is_one_sentence_and_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["convert_torch", "no-such.pt", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: .* exists; name a directory that does not$"):
        convert_torch.main()


def test_described_sizes_are_those_of_lilts_base_model():
    files = convert_torch.describe({name: tuple(t.shape) for name, t in lilt().items()})
    assert json.loads(json.dumps(files))["config.json"]["text_config"]["type_vocab_size"] == 0
    assert files["preprocessor_config.json"]["size"] == {"height": 32, "width": 32}
