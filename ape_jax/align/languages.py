"""Languages that a model tells apart, and which row of its table of means a text belongs to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ape_jax.data.languages.spoken import scripts_of

UNKNOWN = 0
"""The row of texts in no language that the model knows: the mean over languages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Languages:
    """Rows of the table of text means: row 0 is the mean over languages, and each has its own.

    A text without the name of a language is told by its script: the row of the language that is
    written so, or the mean of several that are.

    Example:
      >>> known = Languages(names=(("en", 1), ("it", 2), ("ru", 3)), count=5,
      ...                   scripts=(("Latin", 4), ("Cyrillic", 3)))
      >>> known.rows(["a cat", "кошка", "猫"]).tolist(), known.rows(["a cat"], "en").tolist()
      ([4, 3, 0], [1])

    Attributes:
      names: the row of each language.
      scripts: the row of each script that the training captions were written in.
      count: number of rows.
    """

    names: tuple[tuple[str, int], ...]
    scripts: tuple[tuple[str, int], ...]
    count: int

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> Languages | None:
        """The languages of a record, as `record` makes it; None of none."""
        if record is None:
            return None
        names, scripts = (tuple(record[key].items()) for key in ("names", "scripts"))
        return cls(names=names, scripts=scripts, count=record["count"])

    @property
    def record(self) -> dict[str, Any]:
        """JSON: what a checkpoint keeps."""
        return {"names": dict(self.names), "scripts": dict(self.scripts), "count": self.count}

    def named(self, names: Sequence[str]) -> Int[np.ndarray, " n"]:
        """The row of each name; `UNKNOWN` of a language that the model does not know."""
        of = dict(self.names)
        return np.asarray([of.get(name, UNKNOWN) for name in names], np.int64)

    def rows(
        self, texts: Sequence[str], language: str | Sequence[str] | None = None
    ) -> Int[np.ndarray, " n"]:
        """The row of each text.

        Args:
          texts: n texts.
          language: the name of their language, or of each text's; None tells it by the script.
        """
        if language is None:
            of = dict(self.scripts)
            return np.asarray([of.get(script, UNKNOWN) for script in scripts_of(texts)], np.int64)
        names = [language] * len(texts) if isinstance(language, str) else language
        return self.named(names)

    def with_name(self, name: str) -> Languages:
        """The languages with one more, or with another mean for one; its row is the last."""
        names = {**dict(self.names), name: self.count}
        return dataclasses.replace(self, names=tuple(names.items()), count=self.count + 1)
