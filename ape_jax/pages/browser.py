"""The desk as a page in a browser: what is where, and which button asks what.

Gradio is imported when the page is made. Nothing is sent anywhere: no analytics, no share, and what
is served is thumbnails of what was found.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

from ape_jax.data.records import printable
from ape_jax.errors import UserError, install
from ape_jax.pages.desk import Desk
from ape_jax.search.items import SUFFIXES

_LARGEST = "100mb"
_COLUMNS = ["caption", "cosine", "share, %"]


def check(host: str, port: int) -> None:
    """Says what would keep the page from opening, before a model is loaded.

    Raises:
      UserError: where Gradio is missing, or the address cannot be listened at.
    """
    if missing := _missing():
        raise UserError(f"the page needs {', '.join(missing)}; run {install('app')}")
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--port: cannot listen at {host}:{port} ({reason}); name another"
        ) from None


def _missing() -> list[str]:
    """Packages that Gradio needs and that are not there, without importing it: see `serve`."""
    try:
        lines = metadata.requires("gradio") or ()
    except metadata.PackageNotFoundError:
        return ["gradio"]
    # Behind a semicolon stands for which systems or extras a package is.
    names = [re.match(r"[\w.-]+", line)[0] for line in lines if ";" not in line]
    return [name for name in names if not any(metadata.distributions(name=name))]


def serve(desk: Desk, host: str, port: int) -> None:
    """Shows the page until the process is interrupted.

    Folders are offered only where no other machine can reach the page: whoever does could look at
    every picture of this one.
    """
    # As Ctrl-C does: what visitors have left goes with the process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="ape_jax_page_") as kept:
        # Uploads and thumbnails go there and with it; Gradio reads both when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": kept, "GRADIO_ANALYTICS_ENABLED": "False"}
        page = _page(desk, folders=_is_own(host))
        print(f"the page is at http://{host}:{port}; Ctrl-C ends it", flush=True)
        with contextlib.redirect_stdout(sys.stderr):
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                ssr_mode=False,
                mcp_server=False,
                run_history=False,
                enable_monitoring=False,
                quiet=True,
                allowed_paths=[],
                max_file_size=_LARGEST,
                footer_links=[],
            )


def _is_own(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _answer(ask: Callable[[], tuple[Any, ...]], nothing: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `ask` gives and then no message; where it fails, `nothing` and one sentence."""
    try:
        return (*ask(), "")
    except UserError as error:
        return (*nothing, str(error))
    except Exception as error:  # The page stays up.
        traceback.print_exc()
        return (*nothing, f"this failed with {type(error).__name__}; the terminal says more")


def _page(desk: Desk, folders: bool) -> Any:
    import gradio as gr

    with gr.Blocks(title=desk.title, analytics_enabled=False) as page:
        gr.Markdown(f"# {printable(desk.title)}")
        with gr.Tab("Text to images"):
            collection = _texts(gr, desk, page)
            if folders:
                _folders(gr, desk, collection)
        with gr.Tab("Image to captions"):
            _images(gr, desk)
    return page


def _texts(gr: Any, desk: Desk, page: Any) -> Any:
    """The first tab; gives the list of collections."""
    with gr.Row():
        text = gr.Textbox(label="Text", placeholder="what to look for", scale=3)
        collection = gr.Dropdown(desk.collections, label="Among", scale=2)
        count = gr.Slider(1, 48, 12, step=1, label="How many", scale=1)
    button = gr.Button("Find images", variant="primary")
    message = _message(gr, "text-message")
    gallery = gr.Gallery(
        label="Images", format="jpeg", columns=6, height=420, object_fit="contain", buttons=[]
    )

    def find(text: str, collection: str | None, count: int) -> tuple[Any, ...]:
        def ask() -> tuple[Any, ...]:
            seen = desk.images_for(text, collection, count)
            return ([(one.picture, one.words) for one in seen],)

        images, error = _answer(ask, ([],))
        return images, _said(gr, error)

    for event in (button.click, text.submit):
        event(find, [text, collection, count], [gallery, message], api_visibility="private")
    # Folders that were indexed before the page was opened again.
    page.load(
        lambda: gr.Dropdown(desk.collections, value=next(iter(desk.collections), None)),
        outputs=collection,
        api_visibility="private",
    )
    return collection


def _folders(gr: Any, desk: Desk, collection: Any) -> None:
    with gr.Accordion("A folder of your own", open=False):
        with gr.Row():
            folder = gr.Textbox(label="Folder on this machine", scale=3)
            button = gr.Button("Index it", scale=1)
        message = _message(gr, "folder-message")

    def take(folder: str, progress: Any = None) -> tuple[Any, ...]:
        report = ""

        def ask() -> tuple[Any, ...]:
            nonlocal report
            name, report = desk.take_folder(
                folder, lambda done, total: progress((done, total), "encoding", unit="images")
            )
            return (gr.Dropdown(desk.collections, value=name),)

        chosen, error = _answer(ask, (gr.skip(),))
        return chosen, _said(gr, error or report)

    take.__defaults__ = (gr.Progress(),)  # Gradio knows it by its default value.
    button.click(take, folder, [collection, message], api_visibility="private")


def _images(gr: Any, desk: Desk) -> None:
    with gr.Row():
        with gr.Column():
            file = gr.File(label="Image", file_types=list(SUFFIXES), height=160)
            own = gr.Textbox(
                label="Captions or classes to choose from, one a line",
                placeholder="empty: the captions of the run's evaluation pairs",
                lines=4,
            )
            button = gr.Button("Find captions", variant="primary")
            message = _message(gr, "image-message")
        with gr.Column():
            shown = gr.Image(label="Seen", format="jpeg", interactive=False, height=240, buttons=[])
            table = gr.Dataframe(headers=_COLUMNS, datatype="str", interactive=False)

    def describe(file: str | None, own: str) -> tuple[Any, ...]:
        def ask() -> tuple[Any, ...]:
            picture, found = desk.captions_for(file, own, 10)
            rows = [[d.caption, f"{d.cosine:.3f}", f"{100 * d.share:.1f}"] for d in found]
            return picture, rows

        picture, rows, error = _answer(ask, (None, []))
        return picture, rows, _said(gr, error)

    for event in (button.click, file.upload):
        event(describe, [file, own], [shown, table, message], api_visibility="private")


def _message(gr: Any, name: str) -> Any:
    return gr.Textbox(
        show_label=False, container=False, interactive=False, visible=False, elem_id=name
    )


def _said(gr: Any, words: str) -> Any:
    """A message with these words, which is there only where there are any."""
    return gr.Textbox(words, visible=bool(words))
