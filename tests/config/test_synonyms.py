"""What other libraries call our keys."""

import pytest

from ape_jax import config as config_lib
from ape_jax.config import schema, synonyms
from ape_jax.config.experiment import Config
from ape_jax.errors import UserError

KNOWN = schema.keys(Config)


def test_every_target_is_a_key():
    assert set(synonyms.targets()) <= set(KNOWN)


@pytest.mark.parametrize(
    ("wrote", "words"),
    [
        ("train.lr", "did you mean 'optim.lr'?"),
        ("learning_rate", "did you mean 'optim.lr'?"),
        ("image.resolution", "did you mean 'image.size'?"),
        ("text.resolution", "did you mean 'image.size'?"),
        ("train.batch_size", "did you mean 'train.batch'?"),
        ("data.num-workers", "did you mean 'data.workers'?"),
        ("out_dim", "did you mean 'embed'?"),
        ("image.head.hidden_dim", "did you mean 'image.head.width'?"),
        ("train.dropout", "did you mean 'text.head.dropout'?"),
        ("wd", "did you mean 'optim.weight_decay'?"),
        ("checkpoint", "did you mean 'start.run'?"),
        ("train.epochs", "epochs x pairs / train.batch"),
        ("loss.temperature", "loss.scale, which is 1 / temperature"),
        # By spelling, where no table knows the word.
        ("optim.shedule", "did you mean 'optim.schedule'?"),
        ("train.clip", "did you mean 'optim.clip'?"),
        ("train.stepz", "did you mean 'train.steps'?"),
        ("qqqqqqqq", "--help-config lists all keys"),
    ],
)
def test_unknown_key_names_the_one_that_is_meant(wrote, words):
    with pytest.raises(UserError, match=f"config.{wrote}: no such key") as error:
        config_lib.override(config_lib.default(), {wrote: "1"})
    assert words in str(error.value)
