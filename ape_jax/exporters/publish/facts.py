"""What only the user knows of a model, and a card has to say: its licence, its languages, its data.

None of it is guessed. What is still missing stands in the card, in one line.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CardData, ModelCard

from ape_jax.errors import UserError
from ape_jax.storage import atomic, files

# The hub's own list (https://huggingface.co/docs/hub/repositories-licenses); it takes no other.
LICENSES = tuple(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl "
    "apple-ascl apple-amlr mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa "
    "unlicense zlib pddl lgpl-lr gemma llama2 llama3 llama3.1 llama3.2 llama3.3 unknown "
    "other".split()
)
_KEYS = ("license", "language", "base_model", "datasets")
_ALONE = ("multilingual", "code")  # Languages that the hub takes beside codes of ISO 639.
_DIR = re.compile(r"^DIR = .*$", re.MULTILINE)
_LINE = re.compile(r"\n\nNot stated in this card: .*|\n\nPublish it by `ape-jax push.*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the user says of a model; what is empty stays as the card has it.

    Attributes:
      license: one of `LICENSES`.
      languages: codes of ISO 639, such as "lv".
      datasets: names of data sets on the hub.
      base_models: names of models on the hub.
    """

    license: str = ""
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()

    def check(self) -> None:
        """Checks the values before anything is written.

        Raises:
          UserError: naming the flag, for a value that the hub would refuse.
        """
        if self.license and self.license not in LICENSES:
            close = difflib.get_close_matches(self.license.lower(), LICENSES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "write mit, cc-by-4.0, ... or other"
            raise UserError(f"--license: {self.license!r} is no licence that the hub knows; {hint}")
        for code in self.languages:
            if code not in _ALONE and not re.fullmatch(r"[a-z]{2,3}", code):
                raise UserError(
                    f"--language: {code!r} is no code of ISO 639; write lv, or en,lv for two"
                )
        for flag, names in (("--datasets", self.datasets), ("--base_model", self.base_models)):
            for name in names:
                if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
                    raise UserError(f"{flag}: {name!r} is no name on the hub; write user/name")


NOTHING = Facts()


def from_flags(values: Mapping[str, tuple[str, ...]]) -> Facts:
    """The facts that a command line states, by the names of its flags.

    Raises:
      UserError: for a value that the hub would refuse.
    """
    if len(values["license"]) > 1:
        raise UserError(f"--license: expected one, found {', '.join(values['license'])}")
    facts = Facts(
        license="".join(values["license"]),
        languages=values["language"],
        datasets=values["datasets"],
        base_models=values["base_model"],
    )
    facts.check()
    return facts


def missing(content: str) -> list[str]:
    """The keys that a card does not state.

    Args:
      content: of the card.
    """
    return _missing(ModelCard(content, ignore_metadata_errors=True).data)


def complete(readme: Path, facts: Facts, name: str) -> None:
    """Adds facts to a card, and where the model is.

    Args:
      readme: the card.
      facts: what to add.
      name: of the directory that the model is in.
    """
    atomic.write_text(readme, completed(files.read_text(readme), facts, name))


def completed(content: str, facts: Facts, name: str, repo: bool = False) -> str:
    """The content of a card with facts added, and with what is still missing said.

    Args:
      content: of a card that `card.text` made.
      facts: what to add.
      name: of a directory, or of a repository on the hub.
      repo: which of the two it is.

    Raises:
      UserError: where its head is no YAML.
    """
    try:
        card = ModelCard(content, ignore_metadata_errors=False)
    except Exception as error:  # YAML's own, and ValueError.
        reason = " ".join(str(error).split())
        raise UserError(f"README.md: its head is no metadata of a model card ({reason})") from error
    data = card.data
    data.license = facts.license or data.license
    data.language = list(facts.languages) or data.language
    data.datasets = list(facts.datasets) or data.datasets
    data.base_model = list(facts.base_models) or data.base_model
    where = f'DIR = "{name}"  # on the hub' if repo else f'DIR = "{name}"  # this directory'
    if repo and data.library_name != "transformers":
        where = f'from huggingface_hub import snapshot_download\nDIR = snapshot_download("{name}")'
    text = _DIR.sub(lambda _: where, _LINE.sub("", card.text)).strip()
    if keys := _missing(data):
        text += f"\n\nNot stated in this card: {', '.join(keys)}."
    if not repo:
        text += f"\n\nPublish it by `ape-jax push --export {name} --repo USER/NAME`."
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{text}\n"


def _missing(data: CardData) -> list[str]:
    return [key for key in _KEYS if not data.get(key)]
