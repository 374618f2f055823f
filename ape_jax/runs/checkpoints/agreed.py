"""What the processes of a run are compared by before they work together: config, pairs, towers.

Each comparison comes before anything in which processes that differ would wait for each other in
vain. A process that is alone agrees with itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.data.labelled import Labelled
from ape_jax.data.table import identity
from ape_jax.parallel import agreement
from ape_jax.parallel.agreement import agree
from ape_jax.runs.checkpoints import hashes

_DIGITS = 12  # Of a digest: enough to tell two apart.
# Places, which may have another name on every machine; what is there is compared by its digest. And
# what concerns a machine alone.
_LOCAL = frozenset(
    {
        *("data.pairs", "data.eval", "data.images", "data.texts", "data.workers", "cache.dir"),
        *("image.tower", "text.tower", "start.run", "start.model", "classifier.names"),
    }
)
_SAME_FILES = "give all processes the same files"


def on_config(config: Config) -> None:
    """Compares configs, but for the names of places.

    Raises:
      UserError: the same on every process, naming the key.
    """
    flat = config_lib.flatten(config)
    facts = {f"config.{key}": repr(flat[key]) for key in sorted(flat) if key not in _LOCAL}
    facts["the names of data.eval"] = repr(sorted(config.data.eval))
    agree("the config", facts, "start all of them with the same config")


def on_pairs(digests: Mapping[str, str]) -> None:
    """Compares ids, captions and images, as far as `Pairs.digest` takes them in.

    Args:
      digests: of the pairs, `train` or `eval/NAME`, of unpaired `images` and `texts`, of the
        free pairs `classifier`, or the flag that names them.

    Raises:
      UserError: the same on every process, naming the pairs.
    """
    names = {"train": "data.pairs", "images": "data.images", "texts": "data.texts"}
    names["classifier"] = "classifier.names and of the classifier of image.tower"
    facts = {
        names.get(name, name.replace("eval/", "data.eval.")): digest[:_DIGITS]
        for name, digest in digests.items()
    }
    agree("the pairs", {f"the contents of {name}": x for name, x in facts.items()}, _SAME_FILES)


def on_towers(meta: Mapping[str, Any], prepare: Any) -> None:
    """Compares towers and the preparation of their inputs.

    Args:
      meta: as of `provenance.meta`.
      prepare: of texts; its tokenizer is compared as a whole.

    Raises:
      UserError: the same on every process, naming the tower.
    """
    if agreement.peers() is None:  # A tokenizer is megabytes of text.
        return
    facts = {f"the {name}": _digest(value) for name, value in sorted(meta.items())}
    backend = getattr(getattr(prepare, "encode", None), "backend", None)
    if backend is not None:
        facts["the tokenizer"] = _digest(backend.to_str())
    agree("the towers", facts, _SAME_FILES)


def on_workdir(**found: object) -> None:
    """Compares what a work directory holds.

    Args:
      **found: values by name, "_" for a space.

    Raises:
      UserError: the same on every process, naming what differs.
    """
    facts = {f"the {name.replace('_', ' ')} in --workdir": str(x) for name, x in found.items()}
    agree("the work directory", facts, "name a directory that all of them share")


def on_state(step: int, found: hashes.Hashes, latest: int | None) -> None:
    """Compares parameters and optimizer, which every process computes alike.

    Args:
      step: of the state.
      found: hashes of its arrays.
      latest: step of the checkpoint before, None if there is none.

    Raises:
      UserError: the same on every process, naming the first array that differs.
    """
    facts = {f"{t}{path}": x[:_DIGITS] for t, leaves in found.items() for path, x in leaves.items()}
    again = "it begins again" if latest is None else f"it goes on from step {latest}"
    remedy = (
        f"what they train has gone apart by step {step}, of which nothing is saved; look for a "
        f"machine or driver that is not like the others and start the same command: {again}"
    )
    agree(f"the checkpoint of step {step}", facts, remedy)


def on_labelled(labelled: Labelled, templates: Sequence[str]) -> None:
    """Compares labelled images, the names of their classes, and templates.

    Args:
      labelled: the images, which count by their bytes.
      templates: that class names are put into.

    Raises:
      UserError: the same on every process, naming what differs.
    """
    if agreement.peers() is None:  # Nothing is read in vain.
        return
    images = [identity.image_hash(item.image).hex() for item in labelled]
    facts = {
        "the images of --data": _digest(images),
        "the labels of --data": _digest([item.label for item in labelled]),
        "the names of classes": _digest(labelled.classnames),
        "the templates": _digest(templates),
    }
    agree("the labelled images", facts, _SAME_FILES)


def _digest(value: Any) -> str:
    """The digest that a value brings, or one of the value."""
    if isinstance(value, Mapping) and isinstance(value.get("digest"), str):
        return value["digest"][:_DIGITS]
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
