"""Thumbnails of pairs by row: each is read once, and one that cannot be read says so."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.data.pairs import Pairs
from ape_jax.images.decode import ImageError, load_image
from ape_jax.pages import html
from ape_jax.pages.pictures import Pictures

_LONGEST = 400  # Characters of a caption; one of a million would be the page.
_NOTE = 14
_BYTES = 3_000_000  # Of all pictures of a page.


class Thumbs:
    """Thumbnails of some pairs.

    Args:
      pairs: the pairs.
      pictures: the page's thumbnails, to which those of the rows are added.
      prefix: of their names, a word that no other set of the page has.
    """

    def __init__(self, pairs: Pairs, pictures: Pictures, prefix: str = "p"):
        self._pairs, self._pictures, self._prefix = pairs, pictures, prefix
        self._reasons: dict[int, str] = {}

    @property
    def reasons(self) -> Mapping[int, str]:
        """Why pictures cannot be read, by row."""
        return self._reasons

    def thumb(self, row: int, note: str | None = None, kind: str = "") -> str:
        """A picture; a frame that says so where it cannot be read.

        Args:
          row: of the pairs.
          note: what stands under it; None for the end of its id.
          kind: more classes of the frame, as for `Pictures.thumb`.
        """
        key, pair = f"{self._prefix}{row}", self._pairs[row]
        title = html.shortened(f"{pair.id}: {pair.captions[0]}", _LONGEST)
        if key not in self._pictures and row not in self._reasons:
            if self._pictures.nbytes > _BYTES:
                return self._pictures.thumb(key, title, "not shown")
            try:
                self._pictures.add(key, load_image(pair.image))
            except ImageError as error:
                self._reasons[row] = str(error)
        if row in self._reasons:
            return self._pictures.thumb(key, title, "cannot be read", "missed")
        shown = html.shortened(pair.id[-_NOTE:], _NOTE) if note is None else note
        return self._pictures.thumb(key, title, shown, kind)
