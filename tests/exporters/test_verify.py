"""What an export needs before it begins."""

import pytest

from ape_jax.errors import UserError
from ape_jax.exporters import verify


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"export": ["json", "no_such_a", "no_such_b"]}, r"no_such_a is not .*ape_jax\[export\]"),
        (
            {"export": ["no_such_a"], "onnx": ["no_such_b"]},
            r"no_such_a and no_such_b are not .*ape_jax\[export,onnx\]",
        ),
    ],
)
def test_all_missing_extras_are_named_at_once(needs, words):
    with pytest.raises(UserError, match=words):
        verify.require("onnx", needs)


def test_what_is_installed_is_enough():
    verify.require("onnx", {"export": ["json"]})
