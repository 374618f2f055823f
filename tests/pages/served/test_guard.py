"""The page against those who mean it ill: other sites, mistaken requests, too much of all."""

import json
import pathlib
import shutil
import socket
import time
import urllib.parse

import numpy as np
import pytest
from PIL import Image

_MEGABYTE = 10**6


def raw(app, lines, body=b"", read=2**16):
    """Sends a request as it stands; gives the status, the headers and the body of the answer."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        try:
            connection.sendall(body)
        except OSError:
            pass  # It was answered before all was read.
        answer = b""
        try:
            while chunk := connection.recv(read):
                answer += chunk
        except ConnectionResetError:
            pass
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]), headers, content


def ask(app, path, method="GET", body=b"", **headers):
    """A request of a well-behaved client, but for what is given."""
    named = {"Host": f"127.0.0.1:{app.port}", "Connection": "close"}
    named |= {"Content-Length": str(len(body))} if method == "POST" else {}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return raw(app, [f"{method} {path} HTTP/1.1", *lines], body)


def refused(answer, *statuses):
    """Checks that an answer is one sentence, and gives it."""
    status, headers, content = answer
    assert status in statuses, (status, content[:500])
    sentence = json.loads(content)["detail"]
    assert "\n" not in sentence and "Traceback" not in sentence and len(sentence) < 400
    assert headers["x-frame-options"] == "deny" and headers["x-content-type-options"] == "nosniff"
    return sentence


_EVERY = [
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/report"),
    ("GET", "/theme.css"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/queue/data?session_hash=x"),
    ("GET", "/gradio_api/heartbeat/x"),
    ("GET", "/gradio_api/upload_progress?upload_id=x"),
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/queue/join"),
    ("OPTIONS", "/gradio_api/queue/join"),
    ("GET", "/none"),
]


@pytest.mark.parametrize(("method", "path"), _EVERY)
def test_no_other_name_and_no_other_site_is_answered(app, method, path):
    assert "is not known as" in refused(ask(app, path, method, Host="evil.example"), 403)
    assert "is not known as" in refused(ask(app, path, method, Host=f"a.b:{app.port}"), 403)
    answer = ask(app, path, method, Origin="https://evil.example")
    assert "evil.example" in refused(answer, 403)
    assert "access-control-allow-origin" not in answer[1]
    refused(ask(app, path, method, Origin="null"), 403)
    refused(ask(app, path, method, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="iframe"), 403)


def test_a_request_without_a_name_or_with_two_is_refused(app):
    for lines in ([], ["Host: localhost", "Host: evil.example"]):
        status, _, content = raw(app, ["GET / HTTP/1.1", *lines, "Connection: close"])
        assert status in (400, 403) and b"Traceback" not in content
    assert raw(app, ["GET / HTTP/1.0"])[0] in (400, 403)


def test_no_web_socket_is_opened(app):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    for path in ("/", "/gradio_api/queue/join", "/queue/join"):
        status, _, _ = ask(app, path, **upgrade, **key, Origin="https://evil.example")
        assert status == 403


@pytest.mark.parametrize("path", ["/", "/report", "/theme.css", "/gradio_api/info", "/config"])
def test_answers_cannot_be_framed_or_guessed_at(app, path):
    status, headers, _ = ask(app, path)
    assert status == 200
    assert headers["x-frame-options"] == "deny" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


_NOT_THERE = [
    "/docs",
    "/openapi.json",
    "/monitoring",
    "/monitoring/summary",
    "/login_check",
    "/gradio_api/openapi.json",
    "/gradio_api/proxy=http://127.0.0.1:1/",
    "/gradio_api/runs",
    "/gradio_api/run-history/records",
    "/gradio_api/deep_link?session_hash=x",
    "/gradio_api/call/find/x",
    "/gradio_api/stream/a/b/c/playlist.m3u8",
    "/gradio_api/custom_component/a/b/c/d",
    "/gradio_api/vibe-code",
    "/gradio_api/dev/reload",
    "/gradio_api/token",
    "/pwa_icon",
    "//evil.example/",
    "/x" * 1000,
]


@pytest.mark.parametrize("path", _NOT_THERE)
def test_what_the_page_does_not_need_is_not_there(app, path):
    refused(ask(app, path), 404)


@pytest.mark.parametrize(
    "path",
    "run/predict api/predict call/find component_server process_recording vibe-edit cancel reset "
    "queue/data stream/x file=/etc/passwd".split(),
)
def test_nothing_else_is_taken(app, path):
    refused(ask(app, f"/gradio_api/{path}", "POST", b"{}", Content_Type="application/json"), 404)


def _paths(app, tiny_run):
    kept = next(app.root.glob("ape_jax_page_*"))
    inside = [f"{kept}/../log", f"{kept}/../../../../../etc/passwd", f"{kept}/", str(kept)]
    outside = ["/etc/passwd", str(tiny_run / "config.json"), str(app.log), "config.json", ""]
    odd = ["\0", "x" * 3000, "//etc/passwd", "http://127.0.0.1/", "file:///etc/passwd", "~/.ssh"]
    return [*inside, *outside, *odd]


def test_no_other_file_of_this_machine_is_served(app, tiny_run):
    for path in _paths(app, tiny_run):
        for quoted in (urllib.parse.quote(path), urllib.parse.quote(path, safe="")):
            for prefix in ("/gradio_api/file=", "/gradio_api/file/", "/file="):
                refused(ask(app, prefix + quoted), 404)
    for place in ("static", "assets", "svelte"):
        for climb in ("../" * 12 + "etc/passwd", "..%2f" * 12 + "etc%2fpasswd", "%2fetc%2fpasswd"):
            status, _, content = ask(app, f"/{place}/{climb}")
            assert 400 <= status < 500 and b"root:" not in content and b"Traceback" not in content


def join(app, body, **headers):
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(app, "/gradio_api/queue/join", "POST", sent, **headers)


def _find(app, **changes):
    """The question of the first button: a text, a collection and a count."""
    config = json.loads(ask(app, "/config")[2])
    number = next(d["id"] for d in config["dependencies"] if len(d["inputs"]) == 3)
    asked = {"fn_index": number, "session_hash": "s", "data": ["a red bar", "shapes", 2]}
    return {**asked, "trigger_id": None, **changes}


def test_a_request_that_is_no_question_is_one_sentence(app):
    bodies = [b"", b"{", b"[" * 10**6, b"\xff", b"null", b'{"data":' * 10**5, b"{}" * 9, b"[]"]
    for body in bodies:
        refused(join(app, body), 422)
    for changes in (
        *({"fn_index": i} for i in (-1, 10**6, "0", None, [0], 1.5, True)),
        *({"data": d} for d in ([], ["a"], None, {}, ["a"] * 9, "a", [[]] * 3, [{}] * 3)),
        *({"data": d} for d in (["a", "shapes", 10**9], ["a", "shapes", "2"], ["a", [1], 2])),
        *({"session_hash": s} for s in (None, "", "../x", 3, "x" * 99, ["s"])),
    ):
        sentence = refused(join(app, _find(app, **changes)), 422)
        assert sentence.startswith("the request: ")
    refused(join(app, _find(app, data=["x" * 13 * _MEGABYTE, "shapes", 2])), 413)
    refused(join(app, b"0\r\n\r\n", Content_Length=None, Transfer_Encoding="chunked"), 411)
    status, _, content = join(app, b"{}", Content_Length="x")
    assert status == 400 and content == b"Invalid HTTP request received."


def test_a_question_with_a_name_that_is_not_in_the_list_is_one_sentence(app):
    status, _, content = join(app, _find(app, session_hash="other", data=["a", "<nowhere>", 2]))
    assert status == 200, content
    with socket.create_connection(("127.0.0.1", app.port), timeout=60) as connection:
        host = f"Host: 127.0.0.1:{app.port}"
        path = "/gradio_api/queue/data?session_hash=other"
        connection.sendall(f"GET {path} HTTP/1.1\r\n{host}\r\n\r\n".encode())
        said = b""
        while b"process_completed" not in said:
            said += connection.recv(2**16)
    assert b"there is nothing to search yet" in said and b'"success":true' in said


def upload(app, content, name="a.png", length=None):
    boundary = "----boundary"
    disposition = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: image/png\r\n\r\n"
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    more = {} if length is None else {"Content_Length": str(length)}
    return ask(app, "/gradio_api/upload", "POST", body, Content_Type=kind, **more)


def test_an_upload_that_is_none_is_one_sentence(app):
    kinds = ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=x"]
    for kind in kinds:
        for body in (b"", b"--x", b"--x\r\n\r\nabc", bytes(1000)):
            answer = ask(app, "/gradio_api/upload", "POST", body, Content_Type=kind)
            assert answer[0] in (200, 400, 413, 422), answer
            assert b"Traceback" not in answer[2] and len(answer[2]) < 400
    assert "larger than 100 MB" in refused(upload(app, b"", length=200 * _MEGABYTE), 413)


def test_names_of_uploads_lead_nowhere_else(app):
    before = set(app.root.rglob("evil*"))
    for name in ("../../evil", "/tmp/evil.png", "..\\..\\evil", "evil\0.png", "x" * 4000, "."):
        status, _, content = upload(app, b"x", name)
        assert status in (200, 400), (name, content)
    kept = next(app.root.glob("ape_jax_page_*"))
    assert all(path.is_relative_to(kept) for path in set(app.root.rglob("evil*")) - before)
    assert not pathlib.Path("/tmp/evil.png").exists()


def _resident(app):
    status = pathlib.Path(f"/proc/{app.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs /proc")
def test_many_uploads_leave_memory_and_disk_bounded(app):
    noise = np.random.default_rng(0).bytes(20 * _MEGABYTE)
    upload(app, noise)
    before, kept = _resident(app), next(app.root.glob("ape_jax_page_*"))
    for i in range(40):  # 800 MB.
        status, _, _ = upload(app, i.to_bytes(4, "big") + noise, f"{i}.png")
        assert status == 200
    assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) <= 500 * 10**6
    assert _resident(app) - before < 150 * _MEGABYTE
    assert ask(app, "/")[0] == 200


def test_uploads_that_end_too_soon_do_no_harm(app):
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 90000000\r\n\r\n"
    start = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", app.port), timeout=30) as connection:
            connection.sendall((head + start).encode() + bytes(100_000))
    deadline = time.monotonic() + 60
    while upload(app, bytes(95 * _MEGABYTE))[0] != 200:  # Once the room of those is free again.
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_names_with_html_are_shown_as_text(app, chromium, tiny, tmp_path):
    name = "<img src=x onerror=document.title='taken'>"
    folder = tmp_path / "<b>bold</b>"
    folder.mkdir(parents=True)
    shutil.copy(tiny / "red-bar.png", folder / f"{name}.png")
    Image.new("RGB", (9, 9)).save(folder / "b&lt;i&gt;.png")
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.goto(app.url)
    page.get_by_role("button", name="A folder of your own").click()
    page.get_by_label("Folder on this machine").fill(str(folder))
    page.get_by_text("Index it").click()
    page.wait_for_function(
        "document.querySelector('#folder-message textarea, #folder-message input')"
        "?.value.includes('2 images')"
    )
    page.get_by_label("Text", exact=True).fill(f"{name} a red bar")
    page.get_by_role("button", name="Find images", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.grid-container img').length === 2")
    words = " ".join(page.locator(".grid-container .caption-label").all_inner_texts())
    assert f"{name}.png" in words and "b&lt;i&gt;.png" in words
    assert page.locator("img[src=x]").count() == 0 and page.title() != "taken"
    page.close()
