"""Encodes images into an index, or asks one.

python -m ape_jax.index --workdir RUN --images FOLDER --out INDEX
python -m ape_jax.index --index INDEX --query "something sweet" -k 5
"""

from __future__ import annotations

import json
import os

from absl import flags

from ape_jax import search
from ape_jax.config.precomputed import is_precomputed
from ape_jax.data.records import printable
from ape_jax.errors import UserError
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.aligner import Aligner
from ape_jax.runs.restore import restore
from ape_jax.search import items
from ape_jax.terminal import command

_IMAGES = flags.DEFINE_string("images", "", "A folder of images or a pairs file, to be indexed.")
_OUT = flags.DEFINE_string("out", "", "The index to make, or to bring up to date with --images.")
_INDEX = flags.DEFINE_string("index", "", "The index to ask.")
_QUERY = flags.DEFINE_multi_string("query", [], "A text to look for; may be repeated.")
_LIKE = flags.DEFINE_multi_string("like", [], "An image to find similar ones of; may be repeated.")
_K = flags.DEFINE_integer("k", 5, "How many images to find.", lower_bound=1)
_EXACT = flags.DEFINE_bool("exact", False, "Compare with every image, even of a large index.")


def main() -> None:
    """Makes an index or prints what is found; the last line of stdout is one JSON object."""
    command.refuse_config()
    if bool(_IMAGES.value) != bool(_OUT.value):
        raise UserError("--images and --out: found only one of them; write both to make an index")
    if bool(_OUT.value) == bool(_INDEX.value):
        raise UserError(
            "--index: write --images and --out to make an index, or --index and --query to ask one"
        )
    print(json.dumps(_make() if _OUT.value else _ask(), sort_keys=True))


def _make() -> dict[str, object]:
    directory = command.workdir()
    source = items.open_images(_IMAGES.value, key="--images")  # Fails in no time.
    run = restore(directory)
    if is_precomputed(run.config.image.tower):
        raise UserError(
            f"--workdir: {run.source} takes vectors and no images; there is no index of it"
        )
    added = search.add(
        _OUT.value,
        source,
        Aligner(run),
        run=run.source,
        identity=search.identity(run),
    )
    for reason in added.unreadable[:20]:
        print(f"left out: {reason}")
    print(f"{_OUT.value}: {added}")
    return {
        "encoded": added.encoded,
        "gone": added.gone,
        "images": added.total,
        "kept": added.kept,
        "unreadable": len(added.unreadable),
    }


def _ask() -> dict[str, object]:
    if not (_QUERY.value or _LIKE.value):
        raise UserError("--query: expected a text, or an image with --like, found neither")
    run = _restore(search.maker(_INDEX.value))
    index = search.open_index(_INDEX.value, search.identity(run))
    model = Aligner(run)
    asked = [(text, model.encode_text([text])) for text in _QUERY.value]
    asked += [(path, model.encode_image([path])) for path in _LIKE.value]
    found = {}
    for what, z in asked:
        (hits,) = index.search(z, _K.value, exact=_EXACT.value)
        print(f"{printable(what)}, among {len(index)} images:")
        for place, cosine in hits:
            entry = index.entries[place]
            note = f"  {entry.captions[0]}" if entry.captions else ""
            print(f"  {cosine:.3f}  {printable(entry.name)}{note}")
        found[what] = [[index.entries[place].name, cosine] for place, cosine in hits]
    return found


def _restore(maker: str) -> AlignedModel:
    """The run of --workdir, else the one that made the index."""
    directory = command.workdir(maker)
    if directory == maker and not os.path.isdir(maker):
        raise UserError(f"--index: it was made by {maker}, which is gone; say where with --workdir")
    return restore(directory, {"eval.batch": 8})  # A few queries want no large batch.


if __name__ == "__main__":
    command.run(main)
