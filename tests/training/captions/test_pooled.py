"""Captions as one vector each, pooled as they are read."""

import numpy as np

from ape_jax.features import ragged
from ape_jax.training.captions import pooled
from ape_jax.training.captions.pooled import PooledRows


def test_pooled_captions_are_read_by_rows(rng, monkeypatch):
    tokens = ragged.from_rows([rng.normal(size=(t, 3)).astype(np.float32) for t in (3, 1, 4, 9, 2)])
    rows, whole = PooledRows(tokens, "cls+mean"), tokens.pool("cls+mean")
    monkeypatch.setattr(pooled, "_TOKENS", 5)
    assert (rows.shape, len(rows), rows.nbytes) == ((5, 6), 5, whole.nbytes)
    for index in (slice(None), slice(1, 4), np.array([4, 0, 0, 3]), np.array([], int)):
        np.testing.assert_array_equal(rows[index], whole[index])


def test_a_width_beyond_the_narrower_side_is_one_sentence(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"config.embed: 'cca' maps both sides to at most 32"):
        loop.train_and_evaluate(resolved(tiny_config, method="cca", embed=33), tmp_path)


START = {"image__head__name": "linear", "text__head__name": "linear"}
PLAIN = {"text__head__depth": 4, "text__head__width": 0}  # The defaults: linear takes neither.


@pytest.mark.parametrize("method", ["ridge", "ridge_text", "cca", "procrustes"])
def test_training_starts_at_the_closed_forms_own_figures(tiny_config, tmp_path, method):
    image = "identity" if method == "ridge" else "linear"
    keys = {"text__head__name": "linear", **PLAIN, "image__head__name": image}
    width = 0 if method.startswith("ridge") else 32  # All there is.
    alone = resolved(tiny_config, **PLAIN, method=method, embed=width)
    alone = loop.train_and_evaluate(alone, tmp_path / "a")
    config = resolved(tiny_config, **keys, start__method=method, optim__lr=0.0)
    start = loop.train_and_evaluate(config, tmp_path / "b")
    assert start["step"] == 8 and start["closed_form"] == alone["closed_form"]
    assert metrics_of(start) == metrics_of(alone)


def test_training_goes_on_from_there_and_resumes(tiny_config, tmp_path, monkeypatch):
    keys = {**START, **PLAIN, "start__method": "cca", "optim__lr": 1e-3, "train__eval_every": 4}
    whole = loop.train_and_evaluate(resolved(tiny_config, **keys), tmp_path / "whole")
    assert whole["closed_form"]["method"] == "cca"
    ape_jax.load(tmp_path / "whole")
    # A start that was killed after step 4.
    loop.train_and_evaluate(resolved(tiny_config, **keys), tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/8")
    (tmp_path / "cut/summary.json").unlink()
    monkeypatch.setattr(solve, "solve", None)
    again = loop.train_and_evaluate(resolved(tiny_config, **keys), tmp_path / "cut")
    assert metrics_of(again) == metrics_of(whole)
