"""The desk as a page in a browser: what is where, and which button asks what.

Gradio is imported when the page is made. Nothing is sent anywhere: no analytics, no share, and what
is served is what was found, at most 1,024 pixels wide, and the run's report.
"""

from __future__ import annotations

import contextlib
import functools
import html
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from PIL import Image

from ape_jax.data.cells import printable
from ape_jax.errors import UserError, install
from ape_jax.images.formats import IMAGE_ENDINGS
from ape_jax.pages.served import asked
from ape_jax.pages.served.desk import Described, Desk, Seen
from ape_jax.pages.served.guard import MOST_FILE, Guard
from ape_jax.pages.served.hosts import Hosts, is_loopback
from ape_jax.pages.served.kept import Kept
from ape_jax.parallel import ends, signals

_MOST_SHOWN = 48  # Images.
_MOST_WAITING = 64  # Questions.
_MOST_OPEN = 200  # Connections.
_DESCRIBED = 10  # Captions.
_SHARP = 240  # Pixels that small pictures are enlarged to, or nearly.
_COLUMNS = ["caption", "cosine", "share, %"]
# Arguments are checked before (`ape_jax.pages.served.asked`): Gradio's checks end in tracebacks.
_CHECKED: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
# One picture of visitors is decoded at a time: each may take a gigabyte while it is.
_DECODES: dict[str, Any] = {**_CHECKED, "concurrency_id": "pictures", "concurrency_limit": 1}


def check(host: str, port: int) -> None:
    """Says what would keep the page from opening, before a model is loaded.

    Raises:
      UserError: where Gradio is missing, or the address cannot be listened at.
    """
    if missing := _missing():
        raise UserError(f"the page needs {', '.join(missing)}; run {install('app')}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
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


def serve(desk: Desk, host: str, port: int, hosts: Hosts) -> None:
    """Shows the page until the process is interrupted.

    Folders are offered only where no other machine can reach the page: whoever does could look at
    every picture of this one.
    """
    with tempfile.TemporaryDirectory(prefix="ape_jax_page_") as folder:
        # What visitors have left goes with the process, however it is asked to end.
        ends.afterwards(functools.partial(shutil.rmtree, folder, ignore_errors=True))
        # Uploads go there and with it; Gradio reads both when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        with contextlib.redirect_stdout(sys.stderr):
            app = _application(desk, hosts, Kept(folder), folders=is_loopback(host))
        with contextlib.suppress(KeyboardInterrupt), signals.held():
            _listen(app, host, port)


def _listen(app: Guard, host: str, port: int) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Uvicorn takes the other signals that ask for the end.
            main = threading.current_thread() is threading.main_thread()
            if main and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                signal.signal(signal.SIGHUP, self.handle_exit)
            await super().startup(sockets)
            if self.started:
                shown = f"[{host}]" if ":" in host else host
                print(f"the page is at http://{shown}:{port}; Ctrl-C ends it", flush=True)

    Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http="h11",  # It bounds headers.
            ws="none",
            limit_concurrency=_MOST_OPEN,
            timeout_graceful_shutdown=1,  # Visitors' connections do not end by themselves.
            access_log=False,
            log_level="error",
            server_header=False,
        )
    ).run()


def _application(desk: Desk, hosts: Hosts, kept: Kept, folders: bool) -> Guard:
    """The page behind its guard."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.responses import FileResponse

    page = _page(desk, kept, folders)
    page.queue(max_size=_MOST_WAITING)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if report := desk.report:
        # Gradio would offer it as a download.
        app.get("/report")(lambda: FileResponse(report, media_type="text/html"))
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        allowed_paths=[],
        max_file_size=MOST_FILE,
        footer_links=[],
    )
    return Guard(app, hosts, kept, _questions(page, kept))


def _questions(page: Any, kept: Kept) -> asked.Questions:
    """What the functions of a page take, by its components."""
    kinds: dict[str, Callable[[Any], asked.Argument]] = {
        "textbox": lambda _: asked.text,
        "dropdown": lambda _: asked.choice,
        "slider": lambda slider: asked.whole(slider.minimum, slider.maximum),
        "file": lambda _: asked.file(kept),
        "dataset": lambda dataset: asked.whole(0, len(dataset.samples) - 1),
    }
    return asked.Questions(
        {
            number: [kinds[block.get_block_name()](block) for block in function.inputs]
            for number, function in page.fns.items()
        }
    )


def _answer(ask: Callable[[], tuple[Any, ...]], nothing: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `ask` gives and then no message; where it fails, `nothing` and one sentence."""
    try:
        return (*ask(), "")
    except UserError as error:
        return (*nothing, str(error))
    except Exception as error:  # The page stays up.
        traceback.print_exc()
        return (*nothing, f"this failed with {type(error).__name__}; the terminal says more")


def _page(desk: Desk, kept: Kept, folders: bool) -> Any:
    import gradio as gr

    with gr.Blocks(title=desk.title, analytics_enabled=False) as page:
        gr.HTML(f"<h1>{html.escape(printable(desk.title))}</h1>")
        if desk.report:
            gr.HTML('<a href="report" target="_blank">How well it does: the report of the run</a>')
        with gr.Tab("Find images"):
            collection = _texts(gr, desk, kept, page)
            if folders:
                _folders(gr, desk, collection)
        with gr.Tab("Find captions"):
            _images(gr, desk, kept, page)
    return page


def _texts(gr: Any, desk: Desk, kept: Kept, page: Any) -> Any:
    """The first tab; gives the list of collections."""
    with gr.Row():
        text = gr.Textbox(label="Text", placeholder="what to look for", scale=3)
        collection = gr.Dropdown(desk.collections, label="Among", scale=2)
        count = gr.Slider(1, _MOST_SHOWN, 12, step=1, label="How many", scale=1)
    examples = gr.Dataset(
        components=[text],
        samples=[[example] for example in desk.examples],
        label="Try",
        visible=bool(desk.examples),
        elem_id="examples",
    )
    button = gr.Button("Find images", variant="primary")
    with gr.Accordion("Search by an image", open=False), gr.Row():
        file = gr.File(
            label="Image",
            file_types=list(IMAGE_ENDINGS),
            height=120,
            elem_id="query-image",
            scale=3,
        )
        like = gr.Button("Find images like it", scale=1)
    message = _message(gr, "text-message")
    gallery = gr.Gallery(
        label="Images",
        show_label=False,  # It would cover the first of them.
        format="jpeg",
        columns=6,
        height=480,
        object_fit="contain",
        buttons=["fullscreen"],
    )
    gr.Markdown("A click opens a picture. The number is a cosine: 1 is the same, 0 unrelated.")

    def found(ask: Callable[[], list[Seen]]) -> tuple[Any, ...]:
        images, error = _answer(
            lambda: ([(kept.save(_sharp(x.picture)), x.words) for x in ask()],), ([],)
        )
        return images, _said(gr, error)

    def find(text: str, collection: str | None, count: int) -> tuple[Any, ...]:
        return found(lambda: desk.images_for(text, collection, count))

    def find_like(file: Any, collection: str | None, count: int) -> tuple[Any, ...]:
        return found(lambda: desk.images_like(_path(file), collection, count))

    def try_one(place: int, collection: str | None, count: int) -> tuple[Any, ...]:
        text = desk.examples[place]
        return (text, *find(text, collection, count))

    def begin() -> tuple[Any, ...]:
        """The list of collections, folders of an earlier visit included, and a first result."""
        first, example = next(iter(desk.collections), None), next(iter(desk.examples), "")
        begun = find(example, first, 12) if first and example else ([], _said(gr, ""))
        return (gr.Dropdown(desk.collections, value=first), example, *begun)

    for event in (button.click, text.submit):
        event(find, [text, collection, count], [gallery, message], **_CHECKED)
    for event in (like.click, file.upload):
        event(find_like, [file, collection, count], [gallery, message], **_DECODES)
    chosen = [examples, collection, count]
    examples.click(try_one, chosen, [text, gallery, message], **_CHECKED)
    page.load(begin, outputs=[collection, text, gallery, message], **_CHECKED)
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
    button.click(take, folder, [collection, message], **_CHECKED)


def _images(gr: Any, desk: Desk, kept: Kept, page: Any) -> None:
    with gr.Row():
        with gr.Column():
            file = gr.File(
                label="Image", file_types=list(IMAGE_ENDINGS), height=160, elem_id="described-image"
            )
            own = gr.Textbox(
                label="Captions or classes to choose from, one a line",
                placeholder="empty: the captions of the run's evaluation pairs",
                lines=4,
            )
            button = gr.Button("Find captions", variant="primary")
            message = _message(gr, "image-message")
        with gr.Column():
            shown = gr.Image(
                label="Image",
                format="jpeg",
                interactive=False,
                height=240,
                buttons=[],
            )
            table = gr.Dataframe(headers=_COLUMNS, datatype="str", interactive=False)

    shape = functools.partial(_described, kept)

    def describe(file: Any, own: str) -> tuple[Any, ...]:
        def ask() -> tuple[Any, ...]:
            return shape(*desk.captions_for(_path(file), own, _DESCRIBED))

        picture, rows, error = _answer(ask, (None, []))
        return picture, rows, _said(gr, error)

    for event in (button.click, file.upload):
        event(describe, [file, own], [shown, table, message], **_DECODES)

    def begin() -> tuple[Any, ...]:
        def ask() -> tuple[Any, ...]:
            example = desk.example_image(_DESCRIBED)
            return (None, []) if example is None else shape(*example)

        picture, rows, error = _answer(ask, (None, []))
        return picture, rows, _said(gr, error)

    page.load(begin, outputs=[shown, table, message], **_DECODES)


def _described(
    kept: Kept, picture: Image.Image, found: Sequence[Described]
) -> tuple[str, list[list[str]]]:
    """A picture's file, and rows of the table of captions."""
    rows = [[d.caption, f"{d.cosine:.3f}", f"{100 * d.share:.1f}"] for d in found]
    return kept.save(_sharp(picture)), rows


def _path(file: Any) -> str | None:
    """The path of an upload (`asked.file`)."""
    return file["path"] if file else None


def _sharp(picture: Image.Image) -> Image.Image:
    """A small picture by a whole multiple of its size: a browser would blur it."""
    times = _SHARP // max(picture.size)
    if times < 2:
        return picture
    size = picture.width * times, picture.height * times
    return picture.resize(size, Image.Resampling.NEAREST)


def _message(gr: Any, name: str) -> Any:
    return gr.Textbox(
        show_label=False, container=False, interactive=False, visible=False, elem_id=name
    )


def _said(gr: Any, words: str) -> Any:
    """A message with these words, which is there only where there are any."""
    return gr.Textbox(words, visible=bool(words))
