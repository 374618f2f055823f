"""Renders icons from SVG to PNG on all cores; this module is also the workers' program.

resvg holds Python's lock while it draws, so threads would take turns; each of ours talks to a
process of its own (`python -m ape_jax.demo.icons.render`) over pipes: a line of JSON in, a list of
SVG documents, and for each a length, the PNG and its thumbnail out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ape_jax.errors import UserError

SIZE = 112
# An icon that fills its box would touch the border: this share of it stays free on each side.
_MARGIN = 0.04
_BATCH = 64
THUMBNAIL = 16
_LENGTH = struct.Struct("<I")


def document(icon_set: Mapping[str, Any], name: str) -> str:
    """Makes the SVG document of an icon: its box with a margin, in a square, in black.

    Args:
      icon_set: a `json/<set>.json`, with `icons` and perhaps `left`, `top`, `width` and `height`.
      name: of the icon, whose own values come first.
    """
    icon = icon_set["icons"][name]
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    left, top, width, height = (icon.get(k, icon_set.get(k, v)) for k, v in defaults.items())
    margin = _MARGIN * max(width, height)
    box = (left - margin, top - margin, width + 2 * margin, height + 2 * margin)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" viewBox="{" ".join(f"{x:g}" for x in box)}" '
        f'color="#000">{icon["body"]}</svg>'
    )


def render(svg: str) -> bytes:
    """Renders a PNG, RGBA, transparent where nothing is drawn; empty if the SVG is faulty."""
    import resvg_py

    try:
        # Drawings are paths: without the system's fonts they are the same on every machine.
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    except ValueError:
        return b""


def thumbnail(png: bytes) -> bytes:
    """Shrinks a drawing on white to 16 x 16 grey bytes, each the mean of 7 x 7 pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return ground.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()


def render_all(documents: Sequence[str], workers: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yields (PNG, thumbnail) of each document, in order; `workers` processes (0: one a core).

    Both are empty for a document that cannot be drawn.

    Raises:
      UserError: a worker was killed, most likely for want of memory.
    """
    workers = workers or _cores()
    batches = [documents[i : i + _BATCH] for i in range(0, len(documents), _BATCH)]
    with contextlib.ExitStack() as stack:
        idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        for _ in range(min(workers, len(batches))):
            idle.put(stack.enter_context(_worker()))

        def ask(batch: Sequence[str]) -> list[tuple[bytes, bytes]]:
            process = idle.get()
            try:
                return _ask(process, batch)
            finally:
                idle.put(process)

        executor = stack.enter_context(ThreadPoolExecutor(workers))
        stack.callback(executor.shutdown, cancel_futures=True)
        for images in executor.map(ask, batches):
            yield from images


def _cores() -> int:
    """Number of cores that this process may use; on macOS, the number of cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen]:
    """Starts a process that draws, and ends it with the context."""
    # However this package was found, the process must find it too.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(OSError):  # What could not be written to it is still there.
            process.stdin.close()


def _ask(process: subprocess.Popen, batch: Sequence[str]) -> list[tuple[bytes, bytes]]:
    try:
        process.stdin.write(json.dumps(batch).encode() + b"\n")
        process.stdin.flush()
        images = []
        for _ in batch:
            (length,) = _LENGTH.unpack(process.stdout.read(_LENGTH.size))
            image = process.stdout.read(length)
            images.append((image, process.stdout.read(THUMBNAIL**2) if image else b""))
        return images
    except (OSError, struct.error) as error:
        raise UserError(
            f"A process that draws icons ended early (status {process.poll()}); free some memory "
            "and run `ape-jax demo --only icons` again"
        ) from error


def _serve(requests: io.BufferedIOBase, answers: io.BufferedIOBase) -> None:
    for line in requests:
        for svg in json.loads(line):
            image = render(svg)
            answers.write(_LENGTH.pack(len(image)) + image + (thumbnail(image) if image else b""))
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
