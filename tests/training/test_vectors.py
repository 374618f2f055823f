"""Training on given vectors, without any tower: the whole way round."""

import json

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs import encoder
from ape_jax.training import loop


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Images of width 12 and texts of 2 to 4 tokens of width 6 that share 4 hidden numbers."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(64, 4))
    counts = rng.integers(2, 5, 64)
    image = hidden @ rng.normal(size=(4, 12)) + 0.01 * rng.normal(size=(64, 12))
    tokens = np.repeat(hidden, counts, axis=0) @ rng.normal(size=(4, 6))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(path, image=image, text=tokens, text_offsets=offsets)
    return f"features:{path}"


def without_towers(vectors):
    config = config_lib.default()
    config.image.tower, config.text.tower = "features:12", "features:6"
    config.image.dtype = config.text.dtype = "float32"
    config.data.pairs, config.data.eval = vectors, {"train": vectors}
    config.text.head.depth, config.text.head.width = 2, 64
    config.train.batch, config.train.steps, config.train.log_every = 32, 150, 50
    config.optim.lr = 3e-3
    return config


@pytest.fixture
def config(vectors):
    """A config without towers."""
    return without_towers(vectors)


@pytest.fixture(scope="module")
def trained(vectors, tmp_path_factory):
    """The work directory and the summary of a run, which nobody changes."""
    path = tmp_path_factory.mktemp("trained")
    return path, loop.train_and_evaluate(config_lib.resolve(without_towers(vectors)), path)


def test_a_head_learns_to_match_vectors(trained):
    _, summary = trained
    assert summary["parameters_frozen"] == 24  # The statistics of 12 features alone.
    assert summary["eval/train/t2i_r10"] > 0.9  # Chance is 0.16.


def test_the_saved_model_embeds_vectors(trained, vectors):
    path, summary = trained
    model = encoder.load(path)
    from ape_jax.data.formats.features import open_vectors
    from ape_jax.evaluators import tasks

    pairs = open_vectors(vectors)
    found = tasks.evaluate_retrieval(model, pairs)
    assert found["t2i_r10"] == pytest.approx(summary["eval/train/t2i_r10"], abs=1e-6)
    z = model.encode_image(pairs.image[:3][:, 0])
    assert z.shape == (3, 12)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    with pytest.raises(UserError, match="takes vectors"):
        model.encode_text(["a cat"])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("image.tower", "features:13", "config.image.tower: .* 12 wide; write 'features:12'"),
        ("text.tower", "features:5", "config.text.tower: .* 6 wide"),
    ],
)
def test_a_wrong_width_is_one_sentence(config, tmp_path, key, value, words):
    side, name = key.split(".")
    config[side][name] = value
    with pytest.raises(UserError, match=words):
        loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")


def test_vectors_for_words_need_a_text_tower(config, tmp_path, tiny):
    config.text.tower = str(tiny / "text")
    with pytest.raises(UserError, match=r"captions of .* are vectors"):
        loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")


def test_given_images_are_aligned_with_a_real_text_tower(tiny, tiny_config, tmp_path, rng):
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    table = pa.table(
        {
            "image": rng.normal(size=(len(lines), 9)).tolist(),
            "caption": [line["captions"][0] for line in lines],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    spec = f"features:{tmp_path}/x.parquet"
    tiny_config.image.tower = "features:9"
    tiny_config.data.pairs, tiny_config.data.eval = spec, {"train": spec}
    summary = loop.train_and_evaluate(config_lib.resolve(tiny_config), tmp_path / "run")
    assert summary["step"] == tiny_config.train.steps


def test_the_evaluate_command_takes_vectors(trained, vectors):
    import os
    import subprocess
    import sys

    command = [sys.executable, "-m", "ape_jax.evaluate", "--json", "--workdir", str(trained[0])]
    done = subprocess.run(
        [*command, "--data", vectors],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "eval/data/t2i_r10" in json.loads(done.stdout.splitlines()[-1])
