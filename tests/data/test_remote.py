"""Files and images at urls: a web server of our own, and fsspec's memory."""

import contextlib
import hashlib
import http.server
import threading

import fsspec
import pytest

from ape_jax.data.remote import fetch, transports
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_FIRST_PAUSE", 0.001)
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    transports._client.cache_clear()


class Site:
    """Files by name; counts requests, and can answer as a site in trouble does."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.trouble: list[int | str] = []

    @contextlib.contextmanager
    def running(self):
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                content = site.files.get(self.path.split("?")[0])
                trouble = site.trouble.pop(0) if site.trouble else 200
                if content is None or trouble not in (200, "cut"):
                    self.send_error(404 if content is None else trouble)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", hashlib.md5(content).hexdigest())
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if trouble == "cut" else content)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@pytest.fixture
def site():
    with Site().running() as running:
        yield running


def copy(url: str) -> tuple[bytes, list[str]]:
    said: list[str] = []
    path = fetch.local_copy(url, "data.pairs", said.append)
    with open(path, "rb") as f:
        return f.read(), said


def test_a_file_is_fetched_once_for_each_version(site):
    site.files["/a/p.jsonl"] = b"first"
    url = f"{site.url}/a/p.jsonl?download=true"
    assert copy(url)[0] == b"first" and fetch.local_copy(url, "k", print).endswith("/p.jsonl")
    content, said = copy(url)
    assert content == b"first" and not said
    site.files["/a/p.jsonl"] = b"second"
    content, said = copy(url)
    assert content == b"second" and url in said[0]


def test_a_site_that_recovers_is_tried_again(site):
    site.files["/p.tar"] = bytes(3_000_000)
    site.trouble = [503, 200, "cut", 429]  # Its version, and its content.
    assert copy(f"{site.url}/p.tar")[0] == bytes(3_000_000)


def test_a_file_that_is_not_there_is_one_sentence(site):
    with pytest.raises(UserError, match=r"data\.pairs: .*/no\.tar is not there \(.*404") as error:
        copy(f"{site.url}/no.tar")
    assert len(site.asked) == 1 and "\n" not in str(error.value)


def test_without_the_site_the_last_copy_is_read_and_that_is_said(site):
    site.files["/p.tar"] = b"content"
    url = f"{site.url}/p.tar"
    copy(url)
    site.trouble = [500] * 10
    content, (said,) = copy(url)
    assert content == b"content" and "cannot be reached" in said


def test_a_host_that_does_not_answer_is_one_sentence():
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 does not answer") as error:
        copy("http://127.0.0.1:9/p.tar")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/a.tar", "pip install gcsfs"),
        ("s3://bucket/a.tar", "pip install s3fs"),
        ("az://bucket/a.tar", "pip install adlfs"),
        ("nothing://bucket/a.tar", "nothing here reads nothing://"),
        ("memory://no/such.tar", "not there"),
        ("http://", "not there|does not answer|cannot be fetched"),
        ("https://[/a.tar", "is no url|does not answer"),
    ],
)
def test_a_place_that_cannot_be_read_is_one_sentence(url, words):
    with pytest.raises(UserError, match=words) as error:
        copy(url)
    assert str(error.value).startswith("data.pairs: ") and "\n" not in str(error.value)


def test_files_of_fsspec():
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a 1.tar", b"one")
    memory.pipe("/bucket/b.tar", b"two")
    assert copy("memory://bucket/a 1.tar")[0] == b"one"
    assert fetch.listed("memory://bucket/*.tar", "k") == [
        "memory:///bucket/a 1.tar", "memory:///bucket/b.tar",
    ]  # fmt: skip
    with pytest.raises(UserError, match="folder"):
        copy("memory://bucket")


def test_the_web_has_no_lists(site):
    with pytest.raises(UserError, match=r"write \{00000\.\.00009\}"):
        fetch.listed(f"{site.url}/*.tar", "data.pairs")


def test_a_copy_needs_room(site, monkeypatch):
    monkeypatch.setattr(fetch, "_KEPT_FREE", 2**62)
    site.files["/p.tar"] = b"content"
    with pytest.raises(UserError, match=r"only .* MB are free"):
        copy(f"{site.url}/p.tar")


def test_images_are_fetched_once_by_many_threads(site):
    site.files["/cat.png"] = b"picture"
    url = f"{site.url}/cat.png"
    threads = [threading.Thread(target=fetch.image, args=(url, "n")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked = len(site.asked)
    assert fetch.image(url, "n") == b"picture" and len(site.asked) == asked


def test_an_image_that_cannot_be_fetched_is_a_missing_image(site, monkeypatch):
    with pytest.raises(ImageError, match=r"p\.csv:3: the image cannot be fetched .*404"):
        fetch.image(f"{site.url}/no.png", "p.csv:3")
    site.files["/big.png"] = bytes(3_000_000)
    monkeypatch.setattr(fetch, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="more than 100 bytes"):
        fetch.image(f"{site.url}/big.png", "p.csv:3")
