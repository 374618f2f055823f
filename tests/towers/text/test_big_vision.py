"""The text towers in big_vision's .npz files, made from torch weights by hand."""

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.files import names
from ape_jax.towers.text import big_vision as big_vision_text

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "##s", ",", "mat"]
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 10}


@pytest.fixture(scope="module")
def bert():
    config = transformers.BertConfig(
        **SIZES, num_attention_heads=1, hidden_act="gelu_new", max_position_embeddings=20
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture
def bert_file(bert, tmp_path):
    """In flaxformer's names: kernels [in, out] with the heads joined."""
    arrays = {"params/t": np.zeros(1, np.float32)}
    theirs = {k: v.numpy() for k, v in bert.state_dict().items()}
    root = "params/txt/BertEncoder_0"
    for kind, name in (("token", "word"), ("position", "position"), ("segment", "token_type")):
        table = theirs[f"embeddings.{name}_embeddings.weight"]
        arrays[f"{root}/embedder/embedders_{kind}_ids/embedding"] = table

    def put(to, name, scale=False):
        weight = theirs[f"{name}.weight"]
        arrays[f"{to}/{'scale' if scale else 'kernel'}"] = weight if scale else weight.T
        arrays[f"{to}/bias"] = theirs[f"{name}.bias"]

    put(f"{root}/layer_norm", "embeddings.LayerNorm", scale=True)
    for i in range(2):
        to = f"{root}/encoder_block/layer_sequence/layers_{i}"
        name = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            put(f"{to}/attention_block/attention_layer/{part}", f"{name}.attention.self.{part}")
        put(f"{to}/attention_block/dense_layer", f"{name}.attention.output.dense")
        put(f"{to}/attention_block/layer_norm", f"{name}.attention.output.LayerNorm", scale=True)
        put(f"{to}/mlp_block/mlp/dense_layer", f"{name}.intermediate.dense")
        put(f"{to}/mlp_block/dense_layer", f"{name}.output.dense")
        put(f"{to}/mlp_block/layer_norm", f"{name}.output.LayerNorm", scale=True)
    np.savez(tmp_path / "LiT.npz", **arrays)
    (tmp_path / "LiT.txt").write_text("\n".join(WORDS))
    return tmp_path / "LiT.npz"


def test_bert_of_lit_equals_torch(bert, bert_file, text_reference):
    tower = towers.load(bert_file, kind="text", dtype="float32")
    batch = tower.prepare(["a cat", "Dogs, cats, a mat " * 5])
    want = text_reference.run(bert, batch)
    text_reference.assert_close(
        np.asarray(tower(batch).tokens)[batch["mask"]], want.tokens[batch["mask"]]
    )


def test_texts_of_lit_begin_with_cls_and_have_no_sep(bert_file):
    prepare = towers.load(bert_file, kind="text").prepare
    batch = prepare(["a cats", "dog " * 40])
    assert batch["ids"].shape[1] == 16  # What LiT's models read, of 20 positions.
    assert batch["ids"][0, : batch["mask"][0].sum()].tolist() == [2, 4, 5, 7]
    assert batch["ids"][1].tolist() == [2] + [6] * 15
    assert towers.load(bert_file, kind="text", max_length=20).prepare.max_length == 20


def transformer_params():
    config = {"model_type": "siglip_text_model", "num_attention_heads": 4, **SIZES}
    module, _ = towers.build({**config, "max_position_embeddings": 12}, kind="text")
    rng = np.random.default_rng(0)
    shapes = names.flat_shapes(towers.abstract_params(module))
    flat = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return names.unflatten_dict(flat, sep="/")


def write_transformer(path, table, **more):
    arrays = names.to_file(table, transformer_params(), heads=4, prefix="params/txt/")
    np.savez(path / "s.npz", **arrays, **more)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "cat"])}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path / "s.tokenizer.json"))
    return path / "s.npz"


@pytest.mark.parametrize("table", big_vision_text.TRANSFORMER_TABLES, ids=["unrolled", "scanned"])
def test_transformer_is_siglips_text_tower(tmp_path, table):
    tower = towers.load(write_transformer(tmp_path, table), kind="text")
    config = tower.config
    assert (config.family, config.depth, config.heads) == ("siglip_text", 2, 4)
    assert (config.pooling, config.max_length, config.attends_padding) == ("last", 12, True)
    want = names.flatten_dict(transformer_params(), sep="/")
    for name, array in names.flatten_dict(tower.params, sep="/").items():
        np.testing.assert_array_equal(array, want[name], err_msg=name)
    batch = tower.prepare(["a cat", "cat " * 20])
    assert batch["mask"].all()
    assert batch["ids"][0].tolist() == [3, 4] + [1] * 10
    assert batch["ids"][1].tolist() == [4] * 11 + [1]  # Sticky: the end is never cut off.


def test_positions_that_were_added_twice_are_summed(tmp_path):
    again = np.ones((1, 12, 64), np.float32)
    table = big_vision_text.TRANSFORMER_TABLES[0]
    path = write_transformer(tmp_path, table, **{"params/txt/Encoder_0/pos_embedding": again})
    position = towers.load(path, kind="text").params["embed"]["position"]
    np.testing.assert_array_equal(position, transformer_params()["embed"]["position"] + 1)


def test_a_file_without_its_tokenizer_is_one_sentence(bert_file):
    vocabulary = bert_file.with_suffix(".txt")
    vocabulary.write_text("\n".join(w for w in WORDS if w != "[CLS]"))
    with pytest.raises(UserError, match=r"LiT\.txt: the tokenizer has no \[CLS\]"):
        towers.load(bert_file, kind="text")
    vocabulary.write_text("one\ntwo")
    with pytest.raises(UserError, match=r"LiT\.txt has no \[UNK\]"):
        towers.load(bert_file, kind="text")
    vocabulary.unlink()
    with pytest.raises(UserError, match=r"put the one .* as LiT\.tokenizer\.json .* or LiT\.txt"):
        towers.load(bert_file, kind="text")


def test_another_text_tower_is_one_sentence(tmp_path):
    np.savez(tmp_path / "x.npz", **{"txt/gru/kernel": np.zeros((2, 2))})
    with pytest.raises(UserError, match="no text tower of LiT or SigLIP"):
        towers.load(tmp_path / "x.npz", kind="text")
