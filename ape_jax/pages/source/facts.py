"""The figures of an overview in words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.data.overview.headers import Sizes
from ape_jax.data.overview.overview import Overview
from ape_jax.data.overview.repeats import Repeats
from ape_jax.data.overview.spread import Spread
from ape_jax.data.pairs import Pairs
from ape_jax.data.table.problems import Problems
from ape_jax.pages.html import shortened

_LONGEST = 80


def facts(overview: Overview, pairs: Pairs) -> list[tuple[str, str]]:
    """Each figure as its name and its value in words.

    Args:
      overview: of the pairs.
      pairs: the pairs, for the texts of captions.
    """
    found = [
        ("images", f"{overview.images:,}"),
        ("captions", f"{overview.captions:,}"),
        ("captions an image", _spread(overview.per_image)),
        ("characters a caption", _spread(overview.characters)),
        ("words a caption", _spread(overview.words)),
    ]
    if overview.negatives:
        found.append(("negative captions", f"{overview.negatives:,}"))
    if overview.tokens is not None:
        limit, cut = overview.tokens.limit, overview.tokens.cut
        words = f"; {_of(cut, overview.captions)} are longer than {limit:,} and are cut"
        if not cut:
            words = f"; none is longer than {limit:,}, which the tower takes"
        name = f"tokens a caption, {overview.tokens.tower}"
        found.append((name, _spread(overview.tokens.lengths) + words))
    found += [
        ("scripts", _shares(overview.scripts)),
        ("the same caption on several images", _same_caption(overview.same_caption, pairs)),
        ("images of equal bytes", _same_image(overview)),
        ("sizes of images", _sizes(overview.sizes)),
        ("rows that cannot be used", _problems(pairs.problems)),
    ]
    return found


def _problems(problems: Problems) -> str:
    if not len(problems):
        return "none"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in problems.counts().items())
    return (
        f"{len(problems):,} of {problems.rows:,} ({percent(len(problems), problems.rows)}): {kinds}"
    )


def _spread(spread: Spread) -> str:
    if spread.min == spread.max:
        return f"{spread.min:,}"
    return f"{spread.min:,} to {spread.max:,}, median {spread.median:,}"


def _shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return ", ".join(f"{name} {percent(count, total)}" for name, count in counts.items()) or "none"


def _of(count: int, total: int) -> str:
    return f"{count:,} ({percent(count, total)})"


def percent(count: int, total: int) -> str:
    """A share in percent; what is not nothing is never 0.

    Example:
      >>> percent(1, 3), percent(1, 10**6), percent(0, 5), percent(999_999, 10**6)
      ('33.3 %', 'under 0.1 %', '0 %', 'over 99.9 %')
    """
    share = 100 * count / max(total, 1)
    if count and share < 0.1:
        return "under 0.1 %"
    if count < total and share > 99.9:
        return "over 99.9 %"
    return f"{share:.1f}".removesuffix(".0") + " %"


def _same_caption(same: Repeats, pairs: Pairs) -> str:
    if not same.things:
        return "none"
    shown = [
        f"{shortened(repeated_caption(pairs, some.rows), _LONGEST)!r} on {some.images:,}"
        for some in same.most[:3]
    ]
    return f"{_count(same.things, 'caption')} on {same.images:,} images: {', '.join(shown)}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def repeated_caption(pairs: Pairs, rows: tuple[int, ...]) -> str:
    """A caption that some images have in common."""
    first, *others = (pairs[row].captions for row in rows[:3])
    common = [text for text in first if all(text in captions for captions in others)]
    return common[0] if common else first[0]


def _same_image(overview: Overview) -> str:
    same = overview.same_image
    among = ""
    if same.looked_at < overview.images:
        among = f" among the first {same.looked_at:,} of {overview.images:,}; --verify looks at all"
    if not same.things:
        return f"none{among}"
    return f"{same.images:,} images hold {_count(same.things, 'picture')}{among}"


def _sizes(sizes: Sizes) -> str:
    if not sizes.looked_at:
        return "none could be read"
    words = (
        f"{_spread(sizes.width)} wide; {_spread(sizes.height)} high; {_shares(sizes.formats)} "
        f"({sizes.looked_at:,} looked at"
    )
    return words + (f", {sizes.unreadable:,} cannot be read)" if sizes.unreadable else ")")
