"""Shards of the version before: ArrayRecord files, one record a row."""

from __future__ import annotations

from pathlib import Path

from ape_jax.features.files import shards
from ape_jax.features.files.shards import Shard
from ape_jax.storage import sealed


def convert(old: Path, shard: Shard, new: Path, *, ragged: bool) -> Shard:
    """Writes the rows of an ArrayRecord file as `shards.write` does.

    Args:
      old: the file.
      shard: what is on record of it.
      new: the file that is written.
      ragged: whether rows differ in length.

    Raises:
      UserError: where any byte is not the one that was written.
      OSError: the disk is full or the folder cannot be written.
    """
    shards.verify(old, shard)
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(str(old))
        records = reader.read_all()
        reader.close()
    except (OSError, RuntimeError, IndexError, ValueError) as error:
        raise sealed.damaged(old, f"cannot be read ({str(error).split(';')[0]})") from None
    return shards.write(new, [record or None for record in records], ragged=ragged)
