"""Encodes images into an index, asks one, writes it as a table, or all three.

ape-jax index --workdir RUN --images FOLDER --out INDEX
ape-jax index --index INDEX --query "something sweet" -k 5
ape-jax index --index INDEX --to vectors.parquet
"""

from __future__ import annotations

from absl import flags

from ape_jax.errors import UserError
from ape_jax.terminal import command
from ape_jax.terminal.flags import DIM, WORKDIR, flag_values

FLAGS = flag_values("workdir", "json", "engine", "address", "actors", "dim")
_IMAGES = flags.DEFINE_string(
    "images", "", "A folder of images or a pairs file, to be indexed.", flag_values=FLAGS
)
_OUT = flags.DEFINE_string(
    "out", "", "The index to make, or to bring up to date with --images.", flag_values=FLAGS
)
_INDEX = flags.DEFINE_string("index", "", "The index to ask.", flag_values=FLAGS)
_QUERY = flags.DEFINE_multi_string(
    "query", [], "A text to look for; may be repeated.", flag_values=FLAGS
)
_LIKE = flags.DEFINE_multi_string(
    "like", [], "An image to find similar ones of; may be repeated.", flag_values=FLAGS
)
_K = flags.DEFINE_integer("k", 5, "How many images to find.", 1, flag_values=FLAGS)
_EXACT = flags.DEFINE_bool(
    "exact", False, "Compare with every image, even of a large index.", flag_values=FLAGS
)
_TO = flags.DEFINE_string(
    "to",
    "",
    "A new Parquet file of path, id, vector and captions, for databases of vectors.",
    flag_values=FLAGS,
)
_TO_DTYPE = flags.DEFINE_enum(
    "to_dtype",
    "float32",
    ["float32", "float16", "int8"],
    "Numbers of the vectors of --to; int8 has a column scale.",
    flag_values=FLAGS,
)


def main() -> None:
    """Makes an index, prints what is found in one, writes it as a table, or all three."""
    if bool(_IMAGES.value) != bool(_OUT.value):
        raise UserError("--images and --out: found only one of them; write both to make an index")
    if bool(_OUT.value) == bool(_INDEX.value):
        raise UserError(
            "--index: write --images and --out to make an index, or --index and --query to ask one"
        )
    if _INDEX.value and not (_QUERY.value or _LIKE.value or _TO.value):
        raise UserError(
            "--query: expected a text, an image with --like, or a file with --to, found none"
        )
    if FLAGS["to_dtype"].present and not _TO.value:
        raise UserError("--to_dtype: found it without --to; write the file to make with --to")
    workdir = command.workdir() if _OUT.value else WORKDIR.value
    from ape_jax.commands import index

    questions = index.Questions(
        texts=_QUERY.value, images=_LIKE.value, k=_K.value, exact=_EXACT.value
    )
    place = _INDEX.value or _OUT.value
    table = index.Table(path=_TO.value, dtype=_TO_DTYPE.value)
    cluster = command.ray_cluster()
    what = _IMAGES.value, place, questions, table, cluster, DIM.value
    command.output(*index.index(workdir, *what))


if __name__ == "__main__":
    command.run(main)
