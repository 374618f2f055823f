"""Arguments of recipes: which commas part them, and names that are no arguments."""

import pytest

from ape_jax import config as config_lib
from ape_jax.config.border import arguments
from ape_jax.errors import UserError

DEFAULTS = {"image": "", "pairs": "", "eval": "", "steps": 1, "runlocal": False, "paper": False}


@pytest.mark.parametrize(
    ("written", "pairs"),
    [
        ("features:A.npy,B.npy", "features:A.npy,B.npy"),
        ("photos,2024.csv", "photos,2024.csv"),
        ("a,b,c.csv", "a,b,c.csv"),
        ("{s1,s2}/{000..003}.tar", "{s1,s2}/{000..003}.tar"),
        ("{a,runlocal,image=x}.tar", "{a,runlocal,image=x}.tar"),
        ("demo:emoji:train[:96]", "demo:emoji:train[:96]"),
        ("'a,runlocal,b=c.csv'", "a,runlocal,b=c.csv"),
        ('"a, b.csv"', "a, b.csv"),
        ("it's,o'clock.csv", "it's,o'clock.csv"),
        ("open{brace,rest.csv", "open{brace,rest.csv"),
        ("x=y.csv", "x=y.csv"),
    ],
)
@pytest.mark.parametrize("around", ["pairs={}", "image=i,pairs={},steps=3", "runlocal,pairs={}"])
def test_commas_of_a_value_stay_in_it(written, pairs, around):
    args = config_lib.parse_arg(around.format(written), **DEFAULTS)
    assert args.pairs == pairs
    assert args.image == ("i" if "image=" in around else "")
    assert args.steps == (3 if "steps" in around else 1)
    assert args.runlocal == ("runlocal" in around and around.startswith("runlocal"))


def test_switches_part_arguments():
    args = config_lib.parse_arg("pairs=a.npy,b.npy,runlocal,paper", **DEFAULTS)
    assert args.pairs == "a.npy,b.npy" and args.runlocal and args.paper


@pytest.mark.parametrize(
    ("arg", "words"),
    [
        ("pairs=a.csv,runlcal", "did you mean 'runlocal'?"),
        ("steps=3,b.csv", "no argument 'b.csv'"),
        ("pairs=a,b=c.csv", "quote a value that holds commas"),
        ("image_tower=x", "did you mean 'image'?"),
        ("vision_encoder=x", "did you mean 'image'?"),
        ("lr=3e-4", "write --config.optim.lr=3e-4 beside it"),
        ("optim.lr=3e-4", "write --config.optim.lr=3e-4 beside it"),
        ("max_steps=4", "did you mean 'steps'?"),
        ("epochs=4", "epochs x pairs / train.batch"),
        ("batch_size=4", "write --config.train.batch=4 beside it"),
        ("imagee=x", "did you mean 'image'?"),
    ],
)
def test_what_is_no_argument_is_one_sentence(arg, words):
    with pytest.raises(UserError, match="--config: the recipe takes no argument") as error:
        config_lib.parse_arg(arg, **DEFAULTS)
    assert words in str(error.value)


def test_an_empty_text_is_no_argument():
    assert arguments.split("", DEFAULTS) == []
