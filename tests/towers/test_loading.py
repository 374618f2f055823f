"""What `towers.load` says about directories that are not right."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.files import names, sources
from ape_jax.towers.vision.vit import vit

CONFIG = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def arrays():
    module, _ = towers.build(CONFIG)
    rng = np.random.default_rng(0)
    shapes = names.flat_shapes(towers.abstract_params(module))
    flat = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    return names.to_file(vit.NAMES, names.unflatten_dict(flat, sep="/"), heads=2)


@pytest.fixture
def directory(arrays, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(arrays, tmp_path / "model.safetensors")
    return tmp_path


def change_config(directory, **changes):
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))


def fails(directory, match, **options):
    with pytest.raises(UserError, match=match) as e:
        towers.load(directory, **options)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_missing_unexpected_and_misshapen_tensors_are_listed_together(directory, arrays):
    wrong = dict(arrays)
    del wrong["encoder.layer.1.output.dense.weight"]
    wrong["surprise.weight"] = np.zeros(3, np.float32)
    wrong["layernorm.bias"] = np.zeros(15, np.float32)
    save_file(wrong, directory / "model.safetensors")
    message = fails(directory, "missing in the file: encoder.layer.1.output.dense.weight")
    assert str(directory) in message
    assert "in the file but not in the model: surprise.weight" in message
    assert "layernorm.bias is [15] and should be [16]" in message


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16", "int8"])
def test_what_is_read_is_a_description_and_arrays_on_the_host(directory, param_dtype):
    tower, params = towers.read(directory, param_dtype=param_dtype, image_size=24)
    assert not hasattr(tower, "params")
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))


def test_tensors_of_an_option_the_config_does_not_have_are_unexpected(directory):
    change_config(directory, qkv_bias=False)
    fails(directory, r"not in the model: .*attention\.key\.bias")


def test_a_config_for_more_layers_is_not_half_loaded(directory):
    change_config(directory, num_hidden_layers=3)
    fails(directory, r"missing in the file: encoder\.layer\.2")


def test_heads_and_poolers_are_left_out(directory, arrays):
    extra = {"pooler.dense.bias": np.zeros(2, np.float32), "classifier.bias": np.zeros(5)}
    before = towers.load(directory).tower.digest
    save_file(arrays | extra, directory / "model.safetensors")
    assert towers.load(directory).tower.digest == before


def test_truncated_file(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    fails(directory, r"model\.safetensors is no whole safetensors file")
    path.write_bytes(b"")
    fails(directory, r"model\.safetensors is no whole safetensors file")


def shard(directory, arrays):
    (directory / "model.safetensors").unlink()
    names_ = sorted(arrays)
    files = {"model-00001-of-00002.safetensors": names_[::2]}
    files["model-00002-of-00002.safetensors"] = names_[1::2]
    for file, own in files.items():
        save_file({n: arrays[n] for n in own}, directory / file)
    weight_map = {n: file for file, own in files.items() for n in own}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index, weight_map


def test_shards_give_the_same_tower(directory, arrays):
    whole = towers.load(directory)
    shard(directory, arrays)
    sharded = towers.load(directory)
    assert sharded.tower.digest == whole.tower.digest
    kernel = "attention/query/kernel".split("/")
    a, b = (t.params["blocks"][kernel[0]][kernel[1]][kernel[2]] for t in (whole, sharded))
    np.testing.assert_array_equal(a, b)


def test_a_missing_shard_is_named(directory, arrays):
    shard(directory, arrays)
    (directory / "model-00002-of-00002.safetensors").unlink()
    fails(directory, r"lists model-00002-of-00002\.safetensors, which is not there")


@pytest.mark.parametrize("path", ["../model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_cannot_point_outside(directory, arrays, path):
    index, weight_map = shard(directory, arrays)
    weight_map[sorted(weight_map)[0]] = path
    index.write_text(json.dumps({"weight_map": weight_map}))
    fails(directory, "must be a .safetensors file beside the index")


def test_pickled_weights_are_not_read_and_the_way_out_is_named(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    fails(directory, r"pytorch_model\.bin.*save_pretrained\(NEW_DIR\)")


def test_no_weights_at_all(directory):
    (directory / "model.safetensors").unlink()
    fails(directory, r"holds no model\.safetensors")


def test_one_safetensors_file_may_have_another_name(directory):
    (directory / "model.safetensors").rename(directory / "vit.safetensors")
    assert towers.load(directory).config.width == 16
    save_file({"x": np.zeros(1)}, directory / "other.safetensors")
    fails(directory, r"holds 2 \.safetensors files")


def test_no_config(directory):
    (directory / "config.json").unlink()
    fails(directory, r"no config\.json, which a tower needs")


def test_broken_config(directory):
    (directory / "config.json").write_text('{"model_type": "vit",')
    fails(directory, r"config\.json is not JSON")
    (directory / "config.json").write_text("[1]")
    fails(directory, r"config\.json holds a list")


def test_unknown_model_type_lists_the_supported_ones(directory):
    change_config(directory, model_type="resnet")
    message = fails(directory, "model_type is 'resnet'")
    for known in ("vit", "deit", "dinov2", "clip", "siglip", "bert"):
        assert known in message


def test_wrong_kind(directory):
    fails(directory, "kind 'image', not 'text'", kind="text")


def test_two_tower_config_needs_a_kind():
    with pytest.raises(UserError, match="write kind='image' or kind='text'"):
        towers.build({"model_type": "clip"})
    assert towers.build({"model_type": "clip"}, kind="image")[1].family == "clip"


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("hidden_size", "big", "'hidden_size' is 'big'; write a whole number"),
        ("hidden_size", 15, "width 15, which its 2 heads do not divide"),
        ("num_hidden_layers", 0, "'num_hidden_layers' is 0"),
        ("num_hidden_layers", 10**9, "'num_hidden_layers' is 1000000000; .* 1000 or fewer"),
        (
            "hidden_act",
            "swish9",
            "'hidden_act' is 'swish9', and gelu, .* supported; .* write torch:hf:NAME",
        ),
        ("qkv_bias", 1, "'qkv_bias' is 1; write true or false"),
        ("image_size", [16, 32], "only square towers"),
        ("num_channels", 1, "only RGB towers"),
    ],
)
def test_config_values_are_checked(key, value, match):
    with pytest.raises(UserError, match=match):
        towers.build(CONFIG | {key: value})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dtype": "float16"}, "dtype is 'float16'; write one of float32, bfloat16"),
        ({"image_size": 4}, "image_size is 4"),
        ({"max_length": 16}, "max_length is 16, but an image tower has none"),
        ({"prefix": "query: "}, "prefix is 'query: '"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(UserError, match=match):
        towers.build(CONFIG, **options)


@pytest.mark.parametrize("spec", ["no/such/dir", "hf:justaname", "hf:a/b/c", "hf:../x/y", ""])
def test_specs_that_name_nothing(spec):
    with pytest.raises(UserError, match="tower"):
        towers.load(spec)


def test_hub_errors_are_one_sentence(monkeypatch):
    import huggingface_hub

    def refuse(repo, revision=None, **kwargs):
        raise OSError(f"no route to {repo} at {revision}\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"hf:org/name@v1.*\(no route to org/name at v1\)"):
        towers.load("hf:org/name@v1")


def test_hub_specs_load_the_snapshot(directory, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot(repo, revision=None, **kwargs):
        asked.update(kwargs, repo=repo, revision=revision)
        return str(directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert towers.load("hf:org/name").config.width == 16
    assert (asked["repo"], asked["revision"]) == ("org/name", None)
    assert not any(p.endswith(".bin") for p in asked["allow_patterns"])


def test_half_precision_files_are_read(directory, arrays):
    narrow = {k: v.astype(ml_dtypes.bfloat16) for k, v in arrays.items()}
    save_file(narrow, directory / "model.safetensors")
    tower = towers.load(directory)
    want = narrow["layernorm.bias"].astype(np.float32)
    np.testing.assert_array_equal(tower.params["norm"]["bias"], want)
    assert tower.params["norm"]["bias"].dtype == np.float32


def test_digest_sees_every_tensor_it_loads(directory, arrays):
    before = towers.load(directory).tower.digest
    path = directory / "model.safetensors"
    changed = load_file(path)
    changed["layernorm.bias"] = changed["layernorm.bias"] + 1
    save_file(changed, path)
    assert towers.load(directory).tower.digest != before
    assert len(before) == 64


def test_digest_does_not_depend_on_the_order():
    a, b = sources.Digest(), sources.Digest()
    one, two = np.arange(3.0), np.arange(4)
    for digest, order in ((a, "xy"), (b, "yx")):
        for name in order:
            digest.add(name, one if name == "x" else two)
    assert a.hexdigest() == b.hexdigest()


def test_build_reads_a_directory_or_a_file(directory):
    for path in (directory, directory / "config.json", str(directory)):
        module, config = towers.build(path)
        assert config.depth == 2 and module.config == config


COMPUTED = {
    "roformer": (
        lambda: transformers.RoFormerModel(
            transformers.RoFormerConfig(**BERT_SIZES, max_position_embeddings=24)
        ),
        "encoder.embed_positions.weight",
    ),
    "radio": (
        lambda: transformers.RadioModel(
            transformers.RadioConfig(
                **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
                **{"image_size": 32, "patch_size": 8, "max_img_size": 64},
            )
        ),
        "radio_model.input_conditioner.norm_mean",
    ),
}
BERT_SIZES = {
    **{"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "intermediate_size": 48},
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_file_with_other_numbers_than_are_computed_is_refused(tmp_path, text_reference, name):
    make, tensor = COMPUTED[name]
    text_reference.save(make(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    half = {key: value.astype(np.float16) for key, value in tensors.items()}
    save_file(half, tmp_path / "model.safetensors")
    towers.read(tmp_path)
    save_file({**tensors, tensor: tensors[tensor] + 0.1}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"{tensor}.*holds other numbers"):
        towers.read(tmp_path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [3, ["float32"], "float33", np.int32])
def test_a_dtype_that_is_none_is_one_sentence(dtype):
    with pytest.raises(UserError, match="write one of"):
        towers.build({"model_type": "vit"}, dtype=dtype)
