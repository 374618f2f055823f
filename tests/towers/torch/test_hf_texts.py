"""`torch:hf:` on texts: tokens are transformers' own bits."""

import json

import numpy as np
import pytest
import torch
import transformers

from ape_jax import config as config_lib
from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.features.frontier import outside_tower
from ape_jax.features.outside import OutsideTower
from ape_jax.runs import build
from tests.towers.torch.saving import PLAIN, TEXTS, randomised, save_tokenizer


def load(directory, **options):
    return towers.load(f"torch:hf:{directory}", kind="text", dtype="float32", **options)


def theirs(directory, texts, **options):
    """What transformers gives for these texts, padded together."""
    model = transformers.AutoModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    with torch.inference_mode():
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        return model(**batch, **options), batch["attention_mask"].bool()


def encoded(tower, texts, **reading):
    """The encodings of texts as the cache gets them, in order."""
    return OutsideTower(tower=tower.tower, batch=2, **reading).texts(texts)


@pytest.mark.parametrize("model", ["funnel", "longformer"])
def test_tokens_are_the_last_hidden_state(model, request):
    directory = request.getfixturevalue(model)
    tower = load(directory)
    out = tower(tower.prepare(TEXTS))
    want, mask = theirs(directory, TEXTS)
    np.testing.assert_array_equal(out.tokens, want.last_hidden_state)
    np.testing.assert_array_equal(out.mask, mask)
    mean = [row[kept].mean(0) for row, kept in zip(want.last_hidden_state, mask)]
    np.testing.assert_allclose(out.pooled, torch.stack(mean), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", ["funnel", "longformer"])
def test_a_text_is_encoded_as_alone_whatever_is_beside_it(model, request):
    directory = request.getfixturevalue(model)
    found = encoded(load(directory), TEXTS)
    for text, row in zip(TEXTS, found):
        want, _ = theirs(directory, [text])
        np.testing.assert_allclose(row, want.last_hidden_state[0], rtol=1e-5, atol=1e-5)


def test_an_inner_layer_is_that_hidden_state(longformer):
    found = encoded(load(longformer), ["a red cat"], layer=1)
    want, _ = theirs(longformer, ["a red cat"], output_hidden_states=True)
    np.testing.assert_array_equal(found[0], want.hidden_states[1][0, : len(found[0])])


def test_a_layer_of_another_length_is_refused(funnel):
    with pytest.raises(UserError, match=r"layer is 2; there .* has \d places for 5 tokens"):
        tower = load(funnel)
        tower(tower.prepare(["a red cat"]), layer=2)


def test_characters_of_a_short_text_are_enough_for_canine(tmp_path):
    sizes = {k: v for k, v in PLAIN.items() if k != "vocab_size"}
    config = transformers.CanineConfig(num_hash_buckets=64, **sizes)
    randomised(transformers.CanineModel(config)).save_pretrained(tmp_path)
    transformers.CanineTokenizer().save_pretrained(tmp_path)
    tower = load(tmp_path)
    short, longer = encoded(tower, ["a", "ein Kater"])
    assert len(short) == 3 and len(longer) == 11
    want, _ = theirs(tmp_path, ["ein Kater"])
    np.testing.assert_array_equal(longer, want.last_hidden_state[0])


def test_the_half_of_a_dual_encoder_pools_itself(tmp_path):
    text = {**PLAIN, "max_position_embeddings": 24, "eos_token_id": 2, "bos_token_id": 1}
    vision = {k: v for k, v in PLAIN.items() if k != "vocab_size"}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**vision, "image_size": 32, "patch_size": 8}
    )
    model = randomised(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    tower = load(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.inference_mode():
        want = model.text_model(**tokenizer(["a red cat"], return_tensors="pt")).pooler_output
    np.testing.assert_array_equal(tower(tower.prepare(["a red cat"])).pooled, want)


def test_a_prefix_and_a_length_are_kept(longformer):
    tower = load(longformer, prefix="query : ", max_length=5)
    long = ["the photo of the blue dog"]
    want, _ = theirs(longformer, ["query : the"])
    np.testing.assert_array_equal(tower(tower.prepare(long)).tokens, want.last_hidden_state)


def test_a_length_beyond_the_model_is_refused(longformer):
    with pytest.raises(UserError, match="max_length is 99; this tower takes texts of 24 tokens"):
        load(longformer, max_length=99)


def test_texts_that_leave_nothing_are_refused(longformer, tmp_path):
    for file in longformer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**saved, "post_processor": None}))
    with pytest.raises(UserError, match="leaves nothing of the text ''"):
        load(tmp_path).prepare([""])


def test_the_side_must_be_said_where_files_are_of_neither(longformer, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((longformer / file).read_bytes())
    with pytest.raises(UserError, match="kind='image' or 'text'"):
        towers.load(f"torch:hf:{tmp_path}")


def test_a_config_reads_an_inner_layer(longformer, resnet, tmp_path):
    flat = {"image.tower": f"torch:hf:{resnet}", "text.tower": f"torch:hf:{longformer}"}
    flat |= {"data.pairs": "p.jsonl", "text.layer": 1, "text.dtype": "float32"}
    config = config_lib.resolve(config_lib.unflatten(flat))
    side = build.make_model(config, build.load_towers(config)).text
    found = outside_tower(side, 8).texts(["a red cat"])[0]
    want, _ = theirs(longformer, ["a red cat"], output_hidden_states=True)
    np.testing.assert_array_equal(found, want.hidden_states[1][0, : len(found)])
    config = config.replace({"text.layer": 7})
    with pytest.raises(UserError, match=r"config.text.layer: layer is 7; .* gives 3 hidden states"):
        build.load_towers(config)
