"""`torch:st:`: what `SentenceTransformer.encode` gives, and the tokens of its Transformer."""

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.features.outside import OutsideTower
from ape_jax.towers.outside import OWN
from ape_jax.towers.torch import reading
from ape_jax.towers.torch.describe import describe
from tests.towers.torch.saving import TEXTS, randomised


@pytest.fixture(scope="module")
def sentences(longformer, tmp_path_factory):
    """A SentenceTransformer with two ways of pooling, Dense, Normalize and prompts."""
    path = tmp_path_factory.mktemp("sentences")
    transformer = modules.Transformer(str(longformer), max_seq_length=12)
    pooling = modules.Pooling(32, pooling_mode=("cls", "mean"), include_prompt=False)
    dense = randomised(modules.Dense(64, 20))
    model = SentenceTransformer(
        modules=[transformer, pooling, dense, modules.Normalize()],
        prompts={"query": "query : ", "plain": ""},
        default_prompt_name="query",
        device="cpu",
    )
    model.save(str(path))
    return path


def load(path, **options):
    return towers.load(f"torch:st:{path}", dtype="float32", **options)


def test_pooled_features_are_the_bits_of_encode(sentences):
    tower, model = load(sentences), SentenceTransformer(str(sentences), device="cpu")
    alike = ["a red cat", "the blue dog"]
    want = model.encode(alike, batch_size=2)
    np.testing.assert_array_equal(tower(tower.prepare(alike)).pooled, want)
    assert tower.config.pooled_width() == 20 and tower.config.pooled_parts() == (20,)


def test_every_text_is_encoded_as_encode_does(sentences):
    want = SentenceTransformer(str(sentences), device="cpu").encode(TEXTS)
    tower = load(sentences)
    np.testing.assert_allclose(tower.encode(TEXTS, batch=2), want, rtol=1e-5, atol=1e-6)
    cached = OutsideTower(tower=reading.at(tower.tower, -1, OWN), pooling=OWN).texts(TEXTS)
    np.testing.assert_allclose(np.concatenate(cached), want, rtol=1e-5, atol=1e-6)


def test_another_prompt_and_length_are_those_of_encode(sentences):
    model = SentenceTransformer(str(sentences), device="cpu")
    model.max_seq_length = 6
    want = model.encode(TEXTS, prompt="photo of ")
    found = load(sentences, prefix="photo of ", max_length=6).encode(TEXTS)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_tokens_are_those_of_its_transformer_with_the_prompt(sentences):
    tower = load(sentences)
    rows = OutsideTower(tower=reading.at(tower.tower, -1, "none")).texts(TEXTS)
    model = SentenceTransformer(str(sentences), device="cpu")
    for text, row in zip(TEXTS, rows):
        features = model[0](model.preprocess([text], prompt="query : "))
        want = features["token_embeddings"].detach()[0]
        np.testing.assert_allclose(row, want, rtol=1e-5, atol=1e-5)


def test_texts_that_are_cut_are_counted(sentences, capsys):
    tower = load(sentences, max_length=5)
    OutsideTower(tower=tower.tower, pooling=OWN).texts(TEXTS)
    assert "texts: 4 of 5 are cut to 5 tokens" in capsys.readouterr().err


def test_code_in_its_list_of_modules_is_refused(sentences, tmp_path):
    model = SentenceTransformer(str(sentences), device="cpu")
    model.save(str(tmp_path))
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[1]["type"] = "mine.Pooling"
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (tmp_path / "mine.py").write_text("raise RuntimeError('I ran')")
    with pytest.raises(UserError, match=r"brings code of its own \('mine.Pooling' in modules.json"):
        load(tmp_path)


def test_a_folder_of_transformers_is_pointed_to_its_own_spec(longformer):
    with pytest.raises(UserError, match=r"holds no modules.json.*'torch:hf:"):
        load(longformer)


def test_it_reads_no_images(sentences):
    with pytest.raises(UserError, match="is a tower of kind 'text', not 'image'"):
        load(sentences, kind="image")


def test_inner_layers_are_read_by_the_other_spec(sentences):
    tower = load(sentences)
    with pytest.raises(UserError, match=r"layer is 1; .* or torch:hf: for hidden states"):
        tower(tower.prepare(TEXTS), layer=1, pooling="mean")


def test_what_it_is_can_be_said(sentences, swin):
    found = describe(load(sentences).tower)
    assert found["model"].endswith("Transformer, Pooling, Dense, Normalize")
    assert found["prefix"] == "'query : '" and found["pooling"] == "by the library itself, 20 wide"
    image = describe(towers.load(f"torch:hf:{swin}", kind="image").tower)
    assert image["model"] == "transformers SwinModel" and image["hidden states"] == "3"
