"""Settings that follow from the data."""

import pytest

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.config import automatic
from ape_jax.errors import UserError

OPEN = "few_pairs:image=a,text=b,pairs=c"


def settled(spec, pairs, **options):
    config = config_lib.resolve(recipes.read(spec))
    values, line = automatic.settled(config, pairs, **options)
    return config_lib.resolve({**config_lib.flatten(config), **values}), line


GENTLE = "learning rate 0.0001, dropout 0.6"
FEW = "; so few are learned by heart, a few hundred are a start"


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        (30, f"30 pairs: batch 16, 123 steps, {GENTLE}, 10 views at 112 px{FEW}"),
        (370, f"370 pairs: batch 256, 95 steps, {GENTLE}, 10 views at 112 px"),
        (1000, f"1,000 pairs: batch 256, 257 steps, {GENTLE}, 4 views at 112 px"),
        (
            5_000,
            "5,000 pairs: batch 512, 195 steps, learning rate 0.0003, dropout 0.3, 1 view at 112 "
            "px",
        ),
        (
            60_000,
            "60,000 pairs: batch 1024, 1171 steps, learning rate 0.003, dropout 0.3, 1 view at 112 "
            "px",
        ),
    ],
)
def test_the_number_of_pairs_settles_what_is_open(pairs, line):
    config, said = settled(OPEN, pairs, small=True)
    assert said == line
    assert config.train.batch <= pairs and not automatic.is_open(config)
    assert config.optim.warmup == config.train.steps // 10


def test_auto_is_written_in_a_config_file_as_well(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ape_jax import recipes\n"
        "def get_config(arg=''):\n"
        "  config = recipes.read('few_pairs:image=a,text=b,pairs=c,steps=7,batch=8')\n"
        "  config.train.batch = config.optim.lr = config.cache.views = 'auto'\n"
        "  return config\n"
    )
    config = config_lib.resolve(recipes.read(str(file)))
    assert (config.train.batch, config.optim.lr, config.cache.views) == (-1, -1.0, -1)
    assert config.train.steps == 7 and type(config.optim.lr) is float
    flat = {**config_lib.flatten(config), "train.steps": "auto", "optim.lr": 1}
    assert config_lib.resolve(config_lib.unflatten(flat)).train.steps == -1
    with pytest.raises(UserError, match=r"config\.optim\.lr: expected .* found inf"):
        config_lib.resolve(config_lib.unflatten({**flat, "optim.lr": 10**400}))


def test_what_the_user_says_stays():
    config, line = settled(f"{OPEN},steps=7,batch=8,views=2", 370)
    assert line == f"370 pairs: {GENTLE}, the tower's own size"
    assert (config.train.steps, config.train.batch, config.cache.views) == (7, 8, 2)
    assert config.train.log_every == config.train.checkpoint_every == 1


def test_a_learning_rate_and_a_dropout_that_are_set_stay():
    spec = config_lib.resolve(recipes.read(OPEN)).replace({"optim.lr": 0.01, "latent.dropout": 0.1})
    values, line = automatic.settled(spec, 370, small=True)
    assert not {"optim.lr", "latent.dropout"} & set(values) and "rate" not in line


def test_one_view_is_a_clean_one():
    config, _ = settled(OPEN, 100_000)
    assert config.cache.views == 1 and config.augment.crop == () and not config.augment.flip


def test_the_batch_is_a_multiple_of_the_devices():
    assert settled(OPEN, 100, devices=6)[0].train.batch == 60


def test_auto_is_written_on_the_command_line():
    config = config_lib.default()
    config_lib.override(config, {"train.steps": "auto"})
    assert config.train.steps == automatic.AUTO
    with pytest.raises(UserError, match=r"train\.keep: expected an integer"):
        config_lib.override(config, {"train.keep": "auto"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eval.keep": "best"}, "'best' needs pairs that it is chosen by; write data.split=0.1"),
        ({"data.split": 0.1, "data.eval": {"held-out": "x.csv"}}, "write another name"),
        ({"method": "cca", "start.method": "none", "eval.keep": "best", "data.split": 0.1}, "eval"),
    ],
)
def test_keys_that_do_not_go_together_are_one_sentence(changes, words):
    flat = {**config_lib.flatten(recipes.read(OPEN)), **changes}
    with pytest.raises(UserError, match=words):
        config_lib.resolve(flat)
