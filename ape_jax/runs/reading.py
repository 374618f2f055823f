"""How the pairs of a trained model are read, known before the model is loaded."""

from __future__ import annotations

import dataclasses
import os

from ape_jax.data.options import Reading
from ape_jax.errors import UserError
from ape_jax.runs.directory import workdir
from ape_jax.towers import aligned


def reading_of(directory: str | os.PathLike[str]) -> Reading:
    """What `data.on_error` and `data.max_skipped` of a run say; columns are those of its own files.

    Args:
      directory: a work directory, or a finished model, which stops at rows that cannot be used.
    """
    try:
        if not directory or aligned.is_model(os.fspath(directory)):
            return Reading()
        config = workdir.read_config(workdir.locate(directory))
    except UserError:  # Whoever loads the model says so.
        return Reading()
    return dataclasses.replace(Reading.of(config.data), columns={})
