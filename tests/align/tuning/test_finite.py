"""NaN in a tower's weights is said of the tower and the leaf, before anything is computed."""

import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ape_jax import config as config_lib
from ape_jax.align.tuning import finite
from ape_jax.errors import UserError
from ape_jax.training import loop

VALUES = (np.nan, np.inf, -np.inf)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("side", ["image", "text"])
def test_a_run_ends_before_it_encodes_anything(tiny, tmp_path, side, value):
    shutil.copytree(tiny / side, tmp_path / side)
    file = tmp_path / side / "model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if "layer.1" in key and key.endswith("query.weight"))
    tensors[name] = tensors[name].copy()
    tensors[name][3, 2:4] = value
    save_file(tensors, file, metadata={"format": "pt"})
    config = config_lib.default()
    config.image.tower, config.text.tower = str(tiny / "image"), str(tiny / "text")
    config[side].tower = str(tmp_path / side)
    config.data.pairs, config.train.batch = str(tiny / "pairs.jsonl"), 8
    config.cache.dir = str(tmp_path / "cache")
    with pytest.raises(UserError) as error:
        loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    said = str(error.value)
    assert said.startswith(f"config.{side}.tower: {tmp_path / side}: 2 of ")
    assert "query" in said and "optim.lr" not in said and "\n" not in said
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_kind_of_float_is_looked_at(dtype):
    good = {"a": {"b": np.full((5, 7), 3e4, dtype)}, "c": np.arange(3)}
    finite.check_finite("tower", good)
    for value in VALUES:
        bad = {**good, "z": np.array([1, value, 1], dtype)}
        with pytest.raises(UserError, match="1 of 3 weights of 'z' are not finite"):
            finite.check_finite("tower", bad)


def test_large_weights_whose_sum_overflows_are_finite():
    finite.check_finite("tower", {"a": np.full(9, 3e38, np.float32)})
