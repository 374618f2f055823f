"""Tables of web addresses, whose images are downloaded first: gives img2dataset's command.

* Conceptual Captions: `Train_GCC-training.tsv` (caption, address) and `cc12m.tsv` (address,
  caption), without a header.
* WIT: `wit_v1.train.all-00000-of-00010.tsv`, with the column `image_url`.

Reference: https://github.com/rom1504/img2dataset (dataset_examples/cc3m.md, cc12m.md).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import NoReturn

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.places import first_line
from ape_jax.data.rows import Ask, FileRows
from ape_jax.errors import UserError

_ADDRESS = re.compile(r"https?://\S+|ftp://\S+", re.IGNORECASE)
_CAPTIONS = ("caption_reference_description", "caption_alt_text_description")


def read_addresses(path: str, ask: Ask) -> FileRows:
    """Raises the sentence that says how to download the images.

    Args:
      path: the table.
      ask: what is asked.

    Raises:
      UserError: always.
    """
    cells = first_line(path).split("\t")
    if "image_url" in cells:
        caption = next((name for name in _CAPTIONS if name in cells), _CAPTIONS[0])
        refuse(path, "tsv", "image_url", caption)
    header = ["url" if is_address(cell) else "caption" for cell in cells]
    refuse(path, "tsv", "url", "caption", header="\\t".join(header))


def is_addresses(path: str) -> bool:
    """Tests for two cells without a header, one of them an address, or for WIT's header."""
    cells = first_line(path).split("\t")
    if {"image_url", "page_url"} <= set(cells):
        return True
    return len(cells) == 2 and sum(map(is_address, cells)) == 1


def is_address(cell: str) -> bool:
    """Tests for a web address."""
    return _ADDRESS.fullmatch(cell.strip()) is not None


def refuse(
    path: str,
    form: str,
    url: str,
    caption: str,
    *,
    header: str = "",
    others: Sequence[str] = (),
) -> NoReturn:
    """Raises UserError with the command that downloads the images of a table.

    Args:
      path: the table.
      form: its format, as img2dataset calls it.
      url: the column of addresses.
      caption: the column of captions.
      header: line that the table lacks.
      others: further columns to keep.
    """
    quoted = shlex.quote(path)
    folder = os.path.splitext(path)[0] + "_images"
    words = ["img2dataset", f"--url_list={quoted}", f"--input_format={form}"]
    words += [f"--url_col={shlex.quote(url)}", f"--caption_col={shlex.quote(caption)}"]
    if others:
        kept = "[" + ",".join(f'"{name}"' for name in others) + "]"
        words.append(f"--save_additional_columns={shlex.quote(kept)}")
    words += ["--output_format=webdataset", f"--output_folder={shlex.quote(folder)}"]
    command = " ".join([*words, "--image_size=256", "--resize_mode=keep_ratio"])
    if header:
        command = f"sed -i '1s/^/{header}\\n/' {quoted} && {command}"
    raise UserError(
        f"{path}: the images are web addresses; download them first ({command}) and write "
        f"{folder}/*.tar"
    )


ADDRESSES = PairsFormat(
    name="addresses",
    spec="*.tsv of web addresses (says how to download them)",
    suffixes=(".tsv",),
    matches=is_addresses,
    read=read_addresses,
)
