"""Images and texts to the inputs of `ApeModel`, as it was trained: transformers' own processing.

Beside that, images are opened whose metadata Pillow stumbles over, transparent ones are laid on a
background, texts may get a prefix, are cut to what the tower takes, and are told by their language
or script where the model takes means of languages off them.
"""

from __future__ import annotations

import collections
import io
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict

from .checksums_ape import check
from .essential_ape import essential, is_damaged

_ORIENTATION = 0x0112
# Scripts that one language mixes are one.
_MERGED = {"hiragana": "Japanese kana", "katakana": "Japanese kana", "cjk": "Han (kanji, hanzi)"}
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def open_image(source: str | os.PathLike[str] | bytes) -> PIL.Image.Image:
    """Opens and reads an image; metadata that Pillow refuses are left out, pixels never.

    Args:
      source: the path of a file, or its bytes.

    Raises:
      OSError: there is no such file, it is no image, or pixels are damaged or missing.
    """
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            source = file.read()
    try:
        image = PIL.Image.open(io.BytesIO(source))
        image.load()
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, ... by format.
        image = _without_metadata(source, error)
    if is_damaged(source):
        raise OSError("pixels of the image are missing or their checksum is wrong")
    return image


def _without_metadata(content: bytes, error: Exception) -> PIL.Image.Image:
    pixels_only = essential(content)
    if pixels_only is None:
        raise OSError(f"the image cannot be read ({error})") from error
    try:
        image = pixels_only.open()
        image.load()
    except Exception:  # The pixels are damaged as well, and `error` says how.
        raise OSError(f"the image cannot be read ({error})") from error
    return image


def _read(image: PIL.Image.Image) -> PIL.Image.Image:
    """An image that someone else has opened, with its pixels read."""
    try:
        image.load()
        return image
    except Exception as error:
        try:  # An image is read when it is first used; until then its file is open.
            file: Any = getattr(image, "fp", None)
            file.seek(0)
            content = file.read()
        except Exception:
            raise error from None
        return open_image(content)


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Turns an image as its EXIF says; unlike exif_transpose, it does not write the EXIF anew.

    EXIF that cannot be read, or cannot be written again, refuses no image.
    """
    image = _read(image)
    try:
        method = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Metadata of any content make Pillow raise nearly anything.
        return image
    return image if method is None else image.transpose(method)


class ApeImageProcessor(PilBackend):
    """Resize, centre crop, rescale and normalise with Pillow, by preprocessor_config.json.

    Give paths, bytes, or PIL images as they are opened: what makes them RGB first (transformers'
    pipelines do) drops transparency without a background. Of a path or bytes, odd metadata that
    Pillow stumbles over (a text above its limit, a wrong checksum of a comment) do no harm.
    """

    do_resize = do_center_crop = do_rescale = do_normalize = do_convert_rgb = True
    default_to_square = False
    background = (255, 255, 255)
    rounding, longest, fill = "transformers", False, (0, 0, 0)

    def __init__(
        self,
        background: Sequence[int] = (255, 255, 255),
        rounding: str = "transformers",
        longest: bool = False,
        fill: Sequence[int] = (0, 0, 0),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.background, self.fill = tuple(background), tuple(fill)
        self.rounding, self.longest = rounding, longest

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """As transformers, with paths and bytes opened by `open_image`."""
        if isinstance(image_url_or_urls, list | tuple):
            return [self.fetch_images(one) for one in image_url_or_urls]
        if isinstance(image_url_or_urls, bytes | os.PathLike):
            return open_image(image_url_or_urls)
        if isinstance(image_url_or_urls, str) and os.path.isfile(image_url_or_urls):
            return open_image(image_url_or_urls)
        return super().fetch_images(image_url_or_urls)

    def resize(self, image: np.ndarray, size: Any, **kwargs: Any) -> np.ndarray:
        """As transformers; with `longest` the longest edge is made `size`, as timm does."""
        if self.longest:
            height, width = image.shape[-2:]
            ratio = max(height, width) / size.height
            size = SizeDict(height=round(height / ratio), width=round(width / ratio))
        return super().resize(image, size, **kwargs)

    def center_crop(self, image: np.ndarray, size: Any, **kwargs: Any) -> np.ndarray:
        """As transformers, or with the rounding of torchvision, which timm and open_clip use."""
        if self.rounding != "torchvision":
            return super().center_crop(image, size, **kwargs)
        height, width = image.shape[1:]
        above, left = max(size.height - height, 0) // 2, max(size.width - width, 0) // 2
        big = np.empty((3, max(height, size.height), max(width, size.width)), image.dtype)
        big[:] = np.array(self.fill, image.dtype)[:, None, None]
        big[:, above : above + height, left : left + width] = image
        # A half is rounded to the even number.
        top, start = round((big.shape[1] - size.height) / 2), round((big.shape[2] - size.width) / 2)
        return big[:, top : top + size.height, start : start + size.width]

    def convert_to_rgb(self, image: Any, input_data_format: Any = None) -> np.ndarray:
        """RGB [H, W, 3] of a PIL image: turned as its EXIF says, on the background, 8 bits."""
        if not isinstance(image, PIL.Image.Image):
            return super().convert_to_rgb(image, input_data_format=input_data_format)
        image = upright(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            wide = np.asarray(image).astype(np.int64)
            image = PIL.Image.fromarray(((wide + 128) // 257).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            below = PIL.Image.new("RGBA", image.size, (*self.background, 255))
            image = PIL.Image.alpha_composite(below, image)
        return np.array(image.convert("RGB"))


class ApeTokenizer(PreTrainedTokenizerFast):
    """tokenizer.json as it is; every text gets the prefix of tokenizer_config.json and is cut.

    Of a model with means of languages, `language` says in which the texts are, one for all or one
    of each; without it they are told by their script.
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any
    ) -> ApeTokenizer:
        """As transformers; the files of a local directory are compared with its SHA256SUMS."""
        check(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def __call__(
        self,
        text: str | Sequence[str],
        *args: Any,
        truncation: Any = True,
        language: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """As every tokenizer of transformers, but cut unless `truncation=False` is given."""
        prefix, known = self.init_kwargs.get("prefix", ""), self.init_kwargs.get("languages")
        texts = prefix + text if isinstance(text, str) else [prefix + one for one in text]
        batch = super().__call__(texts, *args, truncation=truncation, **kwargs)
        if not known:
            if language is not None:
                raise ValueError("the model has no means of languages; leave language out")
            return batch
        tensors = kwargs.get("return_tensors")
        rows = language_rows([text] if isinstance(text, str) else text, known, language)
        batch["language"] = rows[0] if isinstance(text, str) and tensors is None else rows
        return batch.convert_to_tensors(tensors)


def language_rows(
    texts: Sequence[str], known: Mapping[str, Any], language: str | Sequence[str] | None = None
) -> list[int]:
    """The row of each text in the model's table of means; 0 is the mean over languages.

    Args:
      texts: n texts.
      known: `names` of languages and `scripts`, each with its row.
      language: of all texts, or of each; None tells them by their scripts.
    """
    if language is None:
        return [known["scripts"].get(script(text), 0) for text in texts]
    names = [language] * len(texts) if isinstance(language, str) else list(language)
    if len(names) != len(texts):
        raise ValueError(f"found {len(names)} languages for {len(texts)} texts")
    return [known["names"].get(name, 0) for name in names]


def script(text: str) -> str:
    """The script of most letters of a text; of equally many the first by name."""
    counts = collections.Counter(filter(None, map(_script_of, text)))
    return max(sorted(counts), key=counts.__getitem__) if counts else "no letters"


def _script_of(letter: str) -> str:
    if not letter.isalpha() or not (name := unicodedata.name(letter, "")):
        return ""
    first = name.split()[0].partition("-")[0].lower()
    return _MERGED.get(first, first.capitalize())
