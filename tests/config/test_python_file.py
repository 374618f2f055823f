"""Config files that do what they like: each is a config or one sentence."""

import os
import subprocess
import sys
import textwrap

import pytest

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.errors import UserError

HEAD = """
import ml_collections, os, sys
from ape_jax import recipes
def base():
    return recipes.read("ape:image=features:512,text=features:384,pairs=features:x.npz")
"""
# What a file has, and words of the sentence that it gives.
BAD = {
    "ends at its top": ("import sys\nsys.exit(0)", "ended the process (exit code 0)"),
    "ends with words": ("import sys\nsys.exit('no data')", "(exit code no data)"),
    "ends later": ("import sys\ndef get_config(arg=''):\n    sys.exit(0)", "ended the process"),
    "ends at once": ("import os\nos._exit(0)", "ended the process (exit code 0)"),
    "ends at once, later": ("import os\ndef get_config(arg=''):\n    os._exit(3)", "exit code 3"),
    "raises": ("raise RuntimeError('two\\nlines')", "failed with RuntimeError: two lines"),
    "raises its own kind": ("class E(BaseException): ...\nraise E", "failed with E: no reason"),
    "raises what has no words": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "failed with E: no reason",
    ),
    "calls itself": ("def f(): f()\nf()", "failed with RecursionError"),
    "is empty": ("", "has no attribute 'get_config'"),
    "has no function": ("get_config = 3", "failed with TypeError"),
    "takes nothing": ("def get_config(): ...", "failed with TypeError"),
    "gives nothing": ("def get_config(arg=''): ...", "must return an ml_collections.ConfigDict"),
    "gives a dictionary": ("def get_config(arg=''): return {}", "and returns dict"),
    "gives a generator": ("def get_config(arg=''): yield {}", "and returns generator"),
    "holds itself": (
        "def get_config(arg=''):\n    c = base(); c.unlock(); c.me = c\n    return c",
        "config.me.me",
    ),
    "has a section of numbers": (
        "def get_config(arg=''):\n    c = base(); c.unlock(); c.me = {1: {2: 3}}\n    return c",
        "a key is a text, found int",
    ),
    "has no section": (
        "def get_config(arg=''):\n    c = base()\n    with c.ignore_type(): c.train = None\n"
        "    return c",
        "config.train: no such key",
    ),
    "has an array for a number": (
        "import numpy\ndef get_config(arg=''):\n    c = base()\n"
        "    with c.ignore_type(): c.seed = numpy.zeros(3)\n    return c",
        "config.seed: expected an integer",
    ),
    "is nested deeply": ("x = " + "[" * 100_000, "failed with SyntaxError"),
    "is an endless sum": ("x = " + "-" * 100_000 + "1", "failed with "),
    "holds NUL": ("x = '\0'", "failed with "),
    "is no UTF-8": (b"x = '\xff'", "failed with SyntaxError"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_config_file_that_fails_is_one_sentence(name, tmp_path):
    content, words = BAD[name]
    path = tmp_path / "mine.py"
    content = (HEAD + content).encode() if isinstance(content, str) else content
    path.write_bytes(content)
    leave = os._exit
    with pytest.raises(UserError) as found:
        config_lib.resolve(recipes.read(f"{path}:steps=3"))
    assert words in str(found.value) and "\n" not in str(found.value)
    assert os._exit is leave


@pytest.mark.parametrize("name", ["pipe.py", "folder.py", "x" * 300 + ".py", "a\0b.py", "none.py"])
def test_what_is_no_config_file_is_said_at_once(name, tmp_path):
    if name == "pipe.py":
        os.mkfifo(tmp_path / name)
    elif name == "folder.py":
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"^--config:|no name that a file can have"):
        recipes.read(f"{tmp_path}/{name}")


def test_a_huge_config_file_is_not_read(tmp_path):
    path = tmp_path / "mine.py"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="is larger than 17 MB"):
        recipes.read(str(path))


def test_what_a_config_prints_is_no_part_of_the_output(tmp_path, capsys):
    path = tmp_path / "mine.py"
    said = "print('top')\ndef get_config(arg=''):\n    print('f')\n    return base()"
    path.write_text(HEAD + said)
    recipes.read(str(path))
    assert capsys.readouterr() == ("", "top\nf\n")


def test_a_config_that_is_changed_within_a_second_is_read_anew(tmp_path):
    """Compiled files are told apart by size and second alone."""
    path = tmp_path / "mine.py"
    for rate in ("0.001", "0.009"):
        path.write_text(
            HEAD + f"def get_config(arg=''):\n    c = base()\n    c.optim.lr = {rate}\n    return c"
        )
        os.utime(path, (1e9, 1e9))
        assert recipes.read(str(path)).optim.lr == float(rate)


def test_a_command_whose_config_ends_the_process_fails(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent("import os\nos._exit(0)"))
    command = [sys.executable, "-m", "ape_jax.main", f"--config={path}", "--workdir=x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --config: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()
