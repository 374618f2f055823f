"""Rows of pictures and captions: what a query finds, and where the right answer stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ape_jax.images.decode import load_image
from ape_jax.pages import html
from ape_jax.pages.pictures import Pictures
from ape_jax.pages.queries import Searched, spaced

_SHOWN = 6  # Answers of a query.
_EXAMPLES = 12
_ALL = 150  # Queries a direction, the worst of them where there are more.
_WORST = 8
_LONGEST = 160  # Characters of a caption beside a picture; a page of long ones stays bounded.


class Gallery:
    """The rows of one data set.

    Args:
      name: of the data set, unique in the page.
      searched: what was found.
      pictures: the page's thumbnails, to which those of the rows are added.
      background: RGB under transparent pixels.
    """

    def __init__(
        self,
        name: str,
        searched: Searched,
        pictures: Pictures,
        background: tuple[int, int, int],
    ):
        self._name, self._found, self._pictures = html.slug(name), searched, pictures
        self._background = background

    def captions(self) -> str:
        """Example captions with the images that they find, then all of them in a folded list."""
        ranks, count = self._found.caption_ranks, len(self._found.captions)
        examples = [self._caption_row(i) for i in spaced(count, _EXAMPLES)]
        worst = [int(i) for i in np.argsort(-ranks, kind="stable")[:_ALL]]
        rows = [self._caption_row(i, f"{self._name}-caption-{i + 1}") for i in worst]
        return "".join(examples) + html.folded(_all_title(count, "captions"), "".join(rows))

    def images(self) -> str:
        """Example images with the captions that they find, then all of them in a folded list."""
        ranks, count = self._found.image_ranks, len(self._found.pairs)
        examples = [self._image_row(i) for i in spaced(count, _EXAMPLES)]
        worst = [int(i) for i in np.argsort(-ranks, kind="stable")[:_ALL]]
        rows = [self._image_row(i, f"{self._name}-image-{i + 1}") for i in worst]
        title = _all_title(count, "images")
        return _two(examples) + html.folded(title, _two(rows))

    def confusions(self) -> str:
        """The captions that prefer a wrong image to their own by the widest margin; '' for none.

        An image that carries the very same caption is not wrong.
        """
        rows = []
        for caption, image in self._worst():
            own = int(self._found.image_index[caption])
            rank = self._found.caption_ranks[caption]
            ask = _ask(self._found.captions[caption], f"its own image is in place {rank}")
            right = self._thumb(caption, own, "own ", "right")
            wrong = self._thumb(caption, image, "first ", "wrong")
            hits = f'{right}<div class="gap">→</div>{wrong}'
            rows.append(_row(ask, hits, kind="ask said"))
        return _two(rows) if rows else ""

    def favourites(self) -> str:
        """The images that come first for the most captions without being right; '' for none."""
        first = self._found.cosines.argmax(axis=1)
        wrong = [i for c, i in enumerate(first) if not self._found.is_right(c, int(i))]
        counts = np.bincount(wrong, minlength=len(self._found.pairs)) if wrong else np.zeros(1, int)
        thumbs = []
        for image in np.argsort(-counts, kind="stable")[:_WORST]:
            if counts[image] > 1:
                words = f"{counts[image]} times"
                thumbs.append(self._picture(int(image), words, ""))
        return f'<div class="hits">{"".join(thumbs)}</div>' if thumbs else ""

    def _worst(self) -> list[tuple[int, int]]:
        """Captions and the wrong images that they like best, the widest margin first."""
        found, worst = self._found, []
        for caption, own in enumerate(found.image_index):
            (image,) = found.best_images(caption, 1)
            if not found.is_right(caption, image):
                margin = found.cosines[caption, image] - found.cosines[caption, own]
                worst.append((float(margin), caption, image))
        return [(caption, image) for _, caption, image in sorted(worst, reverse=True)[:_WORST]]

    def _caption_row(self, caption: int, anchor: str = "") -> str:
        found = self._found
        own, rank = int(found.image_index[caption]), int(found.caption_ranks[caption])
        best = found.best_images(caption, _SHOWN)
        shown = [
            self._thumb(caption, i, f"{place} · ", "right" if i == own else "")
            for place, i in enumerate(best, start=1)
        ]
        if own not in best:
            shown.append('<div class="gap">…</div>')
            shown.append(self._thumb(caption, own, f"{rank} · ", "right missed"))
        note = f"its own image is in place {rank} of {len(found.pairs)}"
        return _row(_ask(found.captions[caption], note), "".join(shown), anchor)

    def _image_row(self, image: int, anchor: str = "") -> str:
        found = self._found
        rank, own = int(found.image_ranks[image]), found.own_caption(image)
        best = found.best_captions(image, _SHOWN - 1)
        items = [self._answer(c, image, place) for place, c in enumerate(best, start=1)]
        if own not in best and all(found.image_index[c] != image for c in best):
            items.append(self._answer(own, image, rank))
        note = f"{rank} of {len(found.captions)}"
        ask = self._picture(image, note, "")
        return _row(ask, f"<ol>{''.join(items)}</ol>", anchor)

    def _answer(self, caption: int, image: int, place: int) -> str:
        words = html.escape(html.shortened(self._found.captions[caption], _LONGEST))
        right = self._found.image_index[caption] == image
        kind, mark = (' class="right"', " ✓") if right else ("", "")
        cosine = f"<small>{self._cosine(caption, image)}</small>"
        return f'<li value="{place}"{kind}>{words}{mark} {cosine}</li>'

    def _thumb(self, caption: int, image: int, before: str, kind: str) -> str:
        return self._picture(image, before + self._cosine(caption, image), kind)

    def _cosine(self, caption: int, image: int) -> str:
        return f"{self._found.cosines[caption, image]:.2f}".replace("-", "\N{MINUS SIGN}")

    def _picture(self, image: int, note: str, kind: str) -> str:
        key, pair = f"p-{self._name}-{image}", self._found.pairs[image]
        if key not in self._pictures:
            self._pictures.add(key, load_image(pair.image, background=self._background))
        title = html.shortened(pair.captions[0], _LONGEST)
        return self._pictures.thumb(key, title, note, kind)


def _all_title(count: int, what: str) -> str:
    if count > _ALL:
        return f"the {_ALL} {what} of {count} that do worst"
    return f"all {count} {what}, the worst first"


def _ask(text: str, note: str) -> str:
    shown = html.escape(html.shortened(text, 2 * _LONGEST))
    return f"<b>{shown}</b><small>{html.escape(note)}</small>"


def _row(ask: str, hits: str, anchor: str = "", kind: str = "ask") -> str:
    name = f' id="{anchor}"' if anchor else ""
    body = f'<div class="{kind}">{ask}</div><div class="hits">{hits}</div>'
    return f'<div class="row"{name}>{body}</div>'


def _two(rows: Sequence[str]) -> str:
    """Short rows, two beside each other where there is room."""
    return f'<div class="two">{"".join(rows)}</div>'
