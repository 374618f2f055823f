"""torch is imported where a tower needs it, and named where it is missing."""

import subprocess
import sys

import pytest

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.torch import folders, libraries


def test_nothing_imports_torch_before_such_a_tower_is_read():
    code = (
        "import sys, ape_jax.main, ape_jax.api.fit, ape_jax.towers.torch.reading\n"
        "sys.exit(bool({'torch', 'timm', 'sentence_transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.parametrize(
    "spec, module, command",
    [
        ("torch:hf:x", "torch", r'pip install "ape_jax\[torch\]"'),
        ("torch:timm:x", "timm", r'pip install "ape_jax\[timm\]"'),
        ("torch:timm:x", "torch", r'pip install "ape_jax\[timm\]"'),
        (
            "torch:st:x",
            "sentence_transformers",
            r'pip install "ape_jax\[sentence-transformers\]"',
        ),
    ],
)
def test_a_missing_library_is_named_with_its_remedy(spec, module, command, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"{module} is not installed; run {command}"):
        towers.load(spec)


@pytest.mark.parametrize("spec", ["torch:", "torch:hf:", "torch:keras:x", "torch:hf"])
def test_a_spec_names_a_library_and_a_model(spec):
    with pytest.raises(UserError, match="write torch:hf:NAME, torch:timm:NAME or torch:st:NAME"):
        towers.load(spec, kind="image")


@pytest.mark.parametrize("name", ["nowhere/at/all", "a b", "./missing"])
def test_a_name_is_a_directory_or_of_the_hub(name):
    with pytest.raises(UserError, match="is no directory; write one, or org/name"):
        folders.resolve(folders.parse(f"torch:hf:{name}"))


def test_weights_that_can_run_code_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pytorch_model.bin, a format that can run code"):
        folders.resolve(folders.parse(f"torch:hf:{tmp_path}"))


def test_an_empty_directory_is_no_model(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        folders.resolve(folders.parse(f"torch:hf:{tmp_path}"))


def test_the_digest_changes_with_any_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = folders.digest(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("not a part of it")
    after = folders.digest(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    assert len({before, after, folders.digest(tmp_path)}) == 3


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match="torch has no device 'cuda:7' here"):
        libraries.device("cuda:7", "image.torch_device")


def test_numbers_are_float32_or_bfloat16(swin):
    with pytest.raises(UserError, match="param_dtype is 'int8'; a tower that torch runs has"):
        towers.load(f"torch:hf:{swin}", kind="image", param_dtype="int8")
