"""Which columns of a table are the images, the captions, the ids and the labels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from ape_jax.errors import UserError

IMAGE_NAMES = (
    *("image", "images", "img", "picture", "photo", "image_path", "img_path", "image_file"),
    *("file_name", "filename", "filepath", "file_path", "path", "file", "jpg", "png", "jpeg"),
    *("webp", "image_name", "imagepath", "image_url", "img_url", "url"),
)
"""Usual names of the column of images, the best first."""
CAPTION_NAMES = (
    *("captions", "caption", "text", "texts", "sentence", "sentences", "title", "txt"),
    *("alt_text", "alt", "description", "descriptions", "prompt", "label_text"),
)
"""Usual names of the column of captions, the best first."""
NEGATIVE_NAMES = (
    *("negatives", "negative_captions", "negative_caption", "hard_negatives", "hard_negative"),
    *("neg_captions", "neg_caption", "negative_texts", "negative_text"),
)
"""Usual names of the column of negative captions, the best first."""
LABEL_NAMES = (
    *("label", "labels", "fine_label", "class", "class_name", "classname", "category", "cls"),
    *("target", "species", "breed"),
)
"""Usual names of the column of labels, the best first."""
_ID_NAMES = ("id",)
_UNGUESSED = ("language", "domain")  # Read where a key of their own names the column.

_NUMBERED = re.compile(r"(?P<stem>.*?)[ _.-]?\d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that are read.

    Attributes:
      image: the images.
      captions: the captions, or the labels; of several each row gives what it has.
      id: the ids; None where there are none.
      negatives: negative captions; of several each row gives what it has.
      language: the language of the captions; None where it is not asked for.
      domain: the style or maker of the image; None where it is not asked for.
      left: those that are not read.
    """

    image: str
    captions: tuple[str, ...]
    id: str | None
    negatives: tuple[str, ...] = ()
    language: str | None = None
    domain: str | None = None
    left: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        """All columns that are read."""
        others = (*self.negatives, self.language, self.domain)
        known = (self.image, *self.captions, self.id, *others)
        return [name for name in known if name is not None]

    def __str__(self) -> str:
        texts = ", ".join(map(repr, self.captions))
        others = ", ".join(map(repr, self.negatives))
        others = f", negative captions from {others}" if others else ""
        others += "" if self.language is None else f", languages from {self.language!r}"
        others += "" if self.domain is None else f", domains from {self.domain!r}"
        rest = f"; not read: {', '.join(map(repr, self.left))}" if self.left else ""
        return f"images from {self.image!r}, captions from {texts}{others}{rest}"


def find_column(found: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that is meant by one of some names, whatever its case; None where there is none.

    Example:
      >>> find_column(["ID", "File_Name", "text"], IMAGE_NAMES)
      'File_Name'
    """
    by_name = {_plain(column): column for column in reversed(found)}
    return next((by_name[_plain(name)] for name in names if _plain(name) in by_name), None)


def choose(
    found: Sequence[str], asked: Mapping[str, Sequence[str]], labels: bool, where: str
) -> Columns:
    """Chooses the columns of images and of captions or labels.

    Args:
      found: names of the columns.
      asked: those that the user has named, by `image`, `captions`, `id`, `label`, `language` and
        `domain`.
      labels: whether labels are wanted and not captions.
      where: the file, and the line of its header, for messages.

    Raises:
      UserError: a column is missing, there twice, or named and not there.
    """
    wanted = "label" if labels else "captions"
    for role in _roles(labels):
        if missing := [name for name in asked.get(role, ()) if name not in found]:
            raise _missing(missing[0], role, found, where)
    image = next(iter(asked.get("image", ())), None) or find_column(found, IMAGE_NAMES)
    texts = tuple(asked.get(wanted, ()))
    if not texts:
        # A reader of images as urls has one column of both kinds of names at most.
        others = [name for name in found if name != image]
        texts = _labels(others) if labels else _captions(others)
    if image is None or not texts:
        needed = "'label'" if labels else "'captions' or 'caption'"
        raise UserError(
            f"{where}: found the columns {_listed(found)}; name them 'image' and {needed}, or say "
            f"which they are by data.columns={{'image': NAME, '{wanted}': NAME}}"
        )
    key = next(iter(asked.get("id", ())), None) or find_column(found, _ID_NAMES)
    negatives = () if labels else tuple(asked.get("negatives", ()))
    if not negatives and not labels:
        own = find_column([name for name in found if name not in texts], NEGATIVE_NAMES)
        negatives = () if own is None else (own,)
    language, domain = (None if labels else _only(asked, role) for role in _UNGUESSED)
    read = (image, *texts, key, *negatives, language, domain)
    doubled = [name for name in read if list(found).count(name or "") > 1]
    if doubled:
        raise UserError(f"{where}: the column {doubled[0]!r} is there twice; remove one")
    left = tuple(name for name in found if name not in read)
    return Columns(
        image=image,
        captions=texts,
        id=key,
        negatives=negatives,
        language=language,
        domain=domain,
        left=left,
    )


def defined(
    found: Sequence[str],
    asked: Mapping[str, Sequence[str]],
    labels: bool,
    where: str,
    say: Callable[[str], None],
) -> Columns:
    """The columns of a format that defines them itself, or those that the user has chosen instead.

    Args:
      found: names of the fields; `image` and `captions` or `label`, and others that the user named.
      asked: those that the user has named. One configuration is for several sources, so that names
        of another one's columns are no error here.
      labels: whether labels are wanted and not captions.
      where: the file, for messages.
      say: takes the line about what is asked for and not there.

    Raises:
      UserError: of the columns that are named for a role some are there, and others are not.
    """
    roles = ("image", "captions", "label", "id", "negatives")
    chosen: dict[str, tuple[str, ...]] = {x: (x,) for x in roles}
    for role in _roles(labels):
        names = tuple(asked.get(role, ()))
        own = () if role in _UNGUESSED else (role,)
        missing = [name for name in names if name not in (*found, *own)]
        # These have no field of their own in any format.
        if 0 < len(missing) < len(names) or (missing and role in _UNGUESSED):
            raise _missing(missing[0], role, found, where)
        if missing:
            say(
                f"{where}: there is no {', '.join(map(repr, missing))}, which data.columns names "
                f"for {role}; {chosen[role][0]!r} is taken as the format defines it"
            )
        elif names:
            chosen[role] = names
    texts = chosen["label" if labels else "captions"]
    negatives = () if labels else chosen["negatives"]
    return Columns(
        image=chosen["image"][0],
        captions=texts,
        id=chosen["id"][0],
        negatives=negatives,
        language=None if labels else _only(chosen, "language"),
        domain=None if labels else _only(chosen, "domain"),
    )


def of_texts(
    found: Sequence[str], asked: Mapping[str, Sequence[str]], where: str, *, named: bool = False
) -> tuple[str, ...]:
    """The columns of captions of a table that need not have images.

    Example:
      >>> of_texts(["id", "title"], {}, "names.csv")
      ('title',)

    Args:
      found: names of the columns.
      asked: those that the user has named; of them `captions` counts.
      where: the file, for messages.
      named: whether the format defines its columns.

    Raises:
      UserError: there is none, or one that is named is not there.
    """
    texts = tuple(name for name in asked.get("captions", ()) if name in found)
    if asked.get("captions") and not named and len(texts) < len(asked["captions"]):
        missing = next(name for name in asked["captions"] if name not in found)
        raise _missing(missing, "captions", found, where)
    texts = texts or (("captions",) if named else _captions(found))
    if not texts and len(found) == 1:
        texts = (found[0],)
    if not texts:
        raise UserError(
            f"{where}: found the columns {_listed(found)}; name that of the texts 'text', or say "
            "which it is by data.columns={'captions': NAME}"
        )
    return texts


def _roles(labels: bool) -> tuple[str, ...]:
    """What is read of a source; of others, such as the label of pairs, the names do not matter."""
    return ("image", "label") if labels else ("image", "captions", "id", "negatives", *_UNGUESSED)


def _only(columns: Mapping[str, Sequence[str]], role: str) -> str | None:
    return next(iter(columns.get(role, ())), None)


def _missing(name: str, role: str, found: Sequence[str], where: str) -> UserError:
    by = f"data.{role} names" if role in _UNGUESSED else f"data.columns names for {role}"
    return UserError(f"{where}: there is no column {name!r}, which {by}; found {_listed(found)}")


def _labels(found: Sequence[str]) -> tuple[str, ...]:
    name = find_column(found, LABEL_NAMES)
    return () if name is None else (name,)


def _captions(found: Sequence[str]) -> tuple[str, ...]:
    """The best-named column; `captions`, `caption` and a numbered series are read as one."""
    best = find_column(found, CAPTION_NAMES)
    if best is not None and _plain(best) in ("captions", "caption"):
        both = [name for name in found if _plain(name) in ("captions", "caption")]
        return (best, *(name for name in both if name != best), *_series(found, "caption", best))
    if best is not None:
        return (best, *_series(found, _plain(best), best))
    for stem in CAPTION_NAMES:
        if series := _series(found, stem, None):
            return series
    return ()


def _series(found: Sequence[str], stem: str, best: str | None) -> tuple[str, ...]:
    """Columns `caption_0`, `caption_1`, ... of a stem."""
    matches = ((name, _NUMBERED.fullmatch(_plain(name))) for name in found if name != best)
    return tuple(name for name, match in matches if match and match["stem"] == stem)


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def _listed(found: Sequence[str]) -> str:
    shown = ", ".join(map(repr, found[:12])) or "none"
    return shown if len(shown) <= 200 else f"{shown[:197]}..."
