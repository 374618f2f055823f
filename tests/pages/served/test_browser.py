"""The page and the report as a person sees them: in a real Chromium, on a run that was trained."""

import os
import pathlib
import re
import shutil
import socket
import urllib.error
import urllib.request
from importlib import metadata

import pytest
from PIL import Image

from ape_jax.data.overview.overview import overview
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.pages import html, source
from ape_jax.pages.served import browser as browser_lib
from ape_jax.pages.served import hosts

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def artifacts():
    """Where pictures are kept for whoever looks at a test run."""
    path = pathlib.Path(os.environ.get("APE_JAX_ARTIFACTS") or _ROOT / "build/artifacts")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("missing", ["gradio", "jinja2"])
def test_what_the_page_needs_is_named_before_a_model_is_loaded(monkeypatch, missing):
    def distributions(name):
        return () if name == missing else (name,)

    def requires(name):
        if missing == "gradio":
            raise metadata.PackageNotFoundError
        return ["jinja2<4.0", "numpy<3.0,>=1.0", "authlib; extra == 'oauth'"]

    monkeypatch.setattr(metadata, "distributions", distributions)
    monkeypatch.setattr(metadata, "requires", requires)
    with pytest.raises(UserError, match=f"the page needs {missing}; run pip install"):
        browser_lib.check("127.0.0.1", 0)


@pytest.fixture(scope="module")
def page(app, chromium):
    """The page, opened once, and all that it asked for and complained about."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.requested, page.complaints = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(app.url)
    yield page
    page.close()


def message(page, name, pattern):
    """Waits for a message of the page and gives it."""
    box = f"#{name} input, #{name} textarea"
    page.wait_for_function(
        "([box, words]) => new RegExp(words).test(document.querySelector(box)?.value ?? '')",
        arg=[box, pattern],
    )
    return page.locator(box).first.input_value()


_SHOWN = "[...document.querySelectorAll('.grid-container img')]"


def pictures(page, count):
    """Waits for so many pictures of the last question; gives the words under them."""
    there = f"{_SHOWN}.length === {count} && {_SHOWN}.every(x => x.complete && x.naturalWidth > 0)"
    page.wait_for_function(f"before => {there} && {_SHOWN}[0].src !== before", arg=page.before)
    return page.locator(".grid-container .caption-label").all_inner_texts()


def search(page, text):
    """Types a text and asks for its images."""
    page.before = page.evaluate(f"{_SHOWN}[0]?.src ?? ''")
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Find images", exact=True).click()


def test_the_page_begins_with_a_result_and_examples(page, artifacts):
    page.before = ""
    words = pictures(page, 12)
    example = page.get_by_label("Text", exact=True).input_value()
    assert re.fullmatch(r"0\.\d\d a \w+ \w+", words[0].strip()) and example in words[0]
    assert page.locator("#examples button, #examples .gallery-item").count() >= 4
    assert page.evaluate(f"{_SHOWN}[0].naturalWidth") == 240  # Six times 40, so not blurred.
    page.screenshot(path=artifacts / "page-begin.png", full_page=True)


def test_an_example_is_searched_with_a_click(page):
    page.before = page.evaluate(f"{_SHOWN}[0].src")
    chosen = page.locator("#examples button, #examples .gallery-item").nth(2)
    text = chosen.inner_text().strip()
    chosen.click()
    pictures(page, 12)
    assert page.get_by_label("Text", exact=True).input_value() == text


def test_a_text_finds_its_images(page, artifacts):
    search(page, "a red bar")
    words = pictures(page, 12)
    assert any(re.fullmatch(r"0\.\d\d a red bar", w.strip()) for w in words[:3]), words
    page.screenshot(path=artifacts / "page-text.png", full_page=True)


def test_an_image_finds_images_like_it(page, tiny, artifacts):
    page.before = page.evaluate(f"{_SHOWN}[0].src")
    page.get_by_role("button", name="Search by an image").click()
    page.locator("#query-image input[type=file]").set_input_files(tiny / "blue-circle.png")
    assert re.fullmatch(r"1\.00 a blue circle", pictures(page, 12)[0].strip())
    page.screenshot(path=artifacts / "page-like.png", full_page=True)


def test_a_picture_opens(page):
    page.locator(".grid-container button, .grid-container .thumbnail-item").first.click()
    page.locator(".preview img").first.wait_for()
    page.keyboard.press("Escape")
    page.locator(".grid-container img").first.wait_for()


def test_the_report_is_a_link_away(page, app):
    assert page.locator("a[href=report]").is_visible()
    with urllib.request.urlopen(f"{app.url}report") as answer:
        assert answer.headers.get_content_type() == "text/html"
        assert b"of 100 captions" in answer.read()


def test_a_text_that_is_too_long_is_one_sentence_and_the_page_goes_on(page):
    search(page, "x" * 10_000)
    said = message(page, "text-message", "10000")
    assert said == "the text has 10000 characters; write at most 2000"
    search(page, "a blue circle")
    pictures(page, 12)
    assert not page.locator("#text-message").is_visible()


def test_a_folder_is_indexed_and_searched(page, tiny, tmp_path, artifacts):
    for name in ("red-bar", "blue-circle", "green-square"):
        shutil.copy(tiny / f"{name}.png", tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "zip.png").write_bytes(b"PK\x03\x04 no image")
    page.get_by_role("button", name="A folder of your own").click()
    folder, button = page.get_by_label("Folder on this machine"), page.get_by_text("Index it")
    for path, words in [
        (tmp_path / "nowhere", "there is no folder"),
        (tmp_path / "empty", "holds no image"),
        (tmp_path, "3 images, 3 encoded, 0 kept, 1 that cannot be read"),
    ]:
        folder.fill(str(path))
        button.click()
        message(page, "folder-message", words)
    assert page.get_by_label("Among").input_value() == str(tmp_path)
    search(page, "a red bar")
    words = pictures(page, 3)
    assert sorted(w.split()[-1] for w in words) == [
        "blue-circle.png",
        "green-square.png",
        "red-bar.png",
    ]
    page.screenshot(path=artifacts / "page-folder.png", full_page=True)


def test_an_image_finds_its_captions(page, tiny, artifacts):
    page.get_by_role("tab", name="Find captions").click()
    page.wait_for_function("document.querySelector('.image-frame img')?.naturalWidth > 0")
    page.screenshot(path=artifacts / "page-captions.png", full_page=True)
    page.get_by_label("Captions or classes").fill("a red bar\na blue circle\na green square")
    page.locator("#described-image input[type=file]").set_input_files(tiny / "blue-circle.png")
    page.wait_for_function(
        "document.querySelectorAll('[data-testid^=cell-][data-testid$=\"-0\"]').length === 3"
    )
    assert page.get_by_test_id("cell-0-0").inner_text().strip() == "a blue circle"
    seen = page.locator(".image-frame img")
    seen.wait_for()
    assert seen.evaluate("x => x.naturalWidth") == 240
    page.screenshot(path=artifacts / "page-image.png", full_page=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [("huge.png", "announces .* pixels, more than"), ("zip.png", "is not an image")],
)
def test_an_image_that_cannot_be_is_one_sentence(page, tiny, tmp_path, name, words):
    if name == "huge.png":
        Image.new("1", (20_000, 20_000)).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(b"PK\x03\x04 no image")
    box = page.locator("#described-image")
    box.get_by_label("Remove").or_(box.get_by_label("Clear")).first.click()
    box.locator("input[type=file]").set_input_files(tmp_path / name)
    said = message(page, "image-message", words)
    assert said.startswith(name) and "\n" not in said


def test_nothing_is_asked_of_or_sent_to_anyone_else(page, app):
    assert page.requested and all(x.startswith((app.url, "data:", "blob:")) for x in page.requested)
    assert not page.complaints
    assert app.watched.read_text() == ""


def test_only_what_was_found_is_served(app, tiny_run, tiny):
    for path in ("/etc/passwd", tiny_run / "config.json", tiny / "red-bar.png", "log", "cache"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{app.url}gradio_api/file={path}")
        assert error.value.code in (403, 404)


def test_the_report_is_whole_without_a_network(chromium, tiny_run, artifacts):
    context = chromium.new_context(offline=True)
    page, requested, complaints = context.new_page(), [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    address = (tiny_run / "report.html").as_uri()
    page.goto(address)
    assert page.locator(".thumb span").count() > 200
    drawn = "getComputedStyle(document.querySelector('.thumb span')).backgroundImage"
    assert page.evaluate(drawn).startswith('url("data:image/png')
    assert page.locator("svg").count() >= 4
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size({"width": 1280, "height": 900})
    assert requested == [address] and not complaints
    page.screenshot(path=artifacts / "report.png", full_page=True)
    context.close()


def test_a_careless_page_would_still_run_nothing_and_ask_nobody(chromium, app, tmp_path):
    body = f"<script>document.title = 'taken'</script><img src='{app.url}favicon.ico'>"
    body += f"<iframe src='{app.url}'></iframe><b onclick='document.title = 1'>b</b>"
    (tmp_path / "page.html").write_text(html.document("own", body, []))
    page, requested = chromium.new_page(), []
    page.on("request", lambda request: requested.append(request.url))
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("b").click()
    assert page.title() == "own" and [x for x in requested if x.startswith("http")] == []
    page.close()


def test_the_page_about_pairs_is_whole_without_a_network(chromium, tiny, tmp_path, artifacts):
    pairs = open_pairs(tiny / "pairs.jsonl")
    (tmp_path / "look.html").write_text(
        source.document(
            overview(pairs),
            pairs,
        )
    )
    context = chromium.new_context(offline=True, viewport={"width": 360, "height": 700})
    page, requested = context.new_page(), []
    page.on("request", lambda request: requested.append(request.url))
    address = (tmp_path / "look.html").as_uri()
    page.goto(address)
    drawn = "getComputedStyle(document.querySelector('.thumb span')).backgroundImage"
    assert page.evaluate(drawn).startswith('url("data:image/png')
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert requested == [address]
    page.set_viewport_size({"width": 1280, "height": 900})
    page.screenshot(path=artifacts / "pairs.png", full_page=True)
    context.close()


def test_an_address_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(UserError, match="--port: cannot listen at"):
            browser_lib.check("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="--port"):
        browser_lib.check("127.0.0.1", 99_999)


def test_folders_are_offered_to_this_machine_alone():
    listened = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "a.b")
    assert [hosts.is_loopback(h) for h in listened] == [True, True, True, False, False]
