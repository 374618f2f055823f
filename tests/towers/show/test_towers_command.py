"""`ape-jax towers`: a description, the card, and a tower beside its own library."""

import json
import subprocess
import sys

import numpy as np
import pytest
import transformers

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.show import card, check, description

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
CARD = """---
license: other
license_name: our-own
license_link: https://example.org/licence
extra_gated_prompt: please
base_model: [a/b, c/d]
---
# A tower
"""


@pytest.fixture
def folder(tmp_path, text_reference):
    """A small BERT with a card."""
    model = transformers.BertModel(transformers.BertConfig(**SIZES))
    text_reference.save(text_reference.randomize(model), tmp_path)
    (tmp_path / "README.md").write_text(CARD)
    return tmp_path


def test_a_description_has_sizes_preparation_and_card(folder):
    found = description.describe(str(folder))
    params = towers.load(folder).params
    assert found["family"].startswith("bert")
    count = sum(np.size(leaf) for leaf in _leaves(params))
    assert (found["parameters"], found["layers"], found["width"]) == (count, 2, 32)
    assert found["preparation"].startswith("1 special tokens before a text, 1 after")
    assert found["licence"] == "our-own https://example.org/licence"
    assert found["made from"] == "a/b, c/d"
    assert "conditions" in found["gate"]
    assert f"{count:,}" in description.lines(found)


def _leaves(tree):
    return [x for v in tree.values() for x in (_leaves(v) if isinstance(v, dict) else [v])]


def test_a_description_reads_no_weights_and_checks_their_shapes(folder):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"hidden_size": 64}))
    with pytest.raises(UserError, match="of another shape"):
        description.describe(str(folder))


@pytest.mark.parametrize(
    "text",
    ["", "no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: mit"],
)
def test_a_card_that_says_nothing_is_none(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert card.read(str(tmp_path)) == {}


def test_precomputed_features_are_no_tower():
    with pytest.raises(UserError, match="no tower"):
        description.describe("features:64", "text")


def test_a_tower_equals_its_own_library(folder):
    found = {d.what: d for d in check.check(str(folder), "text", ["w1 w2 w3", "w9", "w5 w5"])}
    assert set(found) == {"token ids", "tokens", "pooled"}
    assert all(d.fits for d in found.values())


def test_a_tower_of_which_no_file_says_how_it_pools_takes_the_mean(folder, capsys):
    tower = towers.load(folder, dtype="float32")
    batch = tower.prepare(["w1 w2 w3"])
    mean = tower(batch, pooling="mean").pooled
    np.testing.assert_allclose(tower.encode(["w1 w2 w3"]), mean, atol=1e-6)
    assert "no file says how this tower pools" in capsys.readouterr().err
    assert "no file says it" in description.describe(str(folder))["pooling"]


def test_a_tower_that_differs_is_found(folder, monkeypatch):
    other = check.load

    def damaged(spec, **options):
        tower = other(spec, **options)
        if not spec.startswith("torch:"):
            tower.params["blocks"]["mlp"]["fc1"]["bias"] *= 1.01
        return tower

    monkeypatch.setattr(check, "load", damaged)
    found = {d.what: d for d in check.check(str(folder), "text", ["w1 w2 w3", "w9"])}
    assert found["token ids"].fits
    assert not found["tokens"].fits


def test_files_of_no_known_library_are_not_compared(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="only towers of"):
        check.library(tmp_path)


def test_the_command_takes_the_tower_as_a_bare_word(folder):
    command = [sys.executable, "-m", "ape_jax.towers", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"] == 2
    two = subprocess.run([*command, "more"], capture_output=True, text=True, timeout=120)
    assert two.returncode == 1
    assert "unexpected argument" in two.stderr
    none = subprocess.run(command[:3], capture_output=True, text=True, timeout=120)
    assert (none.returncode, "expected a tower" in none.stderr) == (1, True)
