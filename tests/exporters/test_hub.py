"""Pushing an export, with the hub's own client against a stand-in for the hub."""

import base64
import hashlib
import http.server
import json
import threading

import pytest
import yaml

from ape_jax import push as push_command
from ape_jax.errors import UserError
from ape_jax.exporters.publish import facts as card_facts
from ape_jax.exporters.publish import hub
from ape_jax.terminal import command

FACTS = card_facts.Facts(license="mit", languages=("lv",))
CARD = """---
library_name: transformers
---

# A model

DIR = "."  # this directory
"""


class StandIn(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub that a commit needs; large files go by LFS."""

    def log_message(self, *_):
        """Says nothing."""

    def do_POST(self):
        """Creates, validates, prepares and commits."""
        body, hub = self._body(), self.server.hub
        hub["asked"].append((self.path, self.headers.get("authorization")))
        if hub["refuses"] and "commit" in self.path:
            self._answer({"error": "You don't have the rights"}, 403)
        elif self.path == "/api/repos/create":
            hub["repo"] = json.loads(body)
            self._answer({"url": f"{self.server.url}/me/shapes"})
        elif self.path == "/api/validate-yaml":
            hub["metadata"] = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            kind = {True: "lfs", False: "regular"}
            files = [
                {**file, "uploadMode": kind[file["path"].endswith("s")], "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif self.path.endswith("/objects/batch"):
            objects = [
                {**x, "actions": {"upload": {"href": f"{self.server.url}/lfs/{x['oid']}"}}}
                for x in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub["files"][line["value"]["path"]] = content
                elif line["key"] == "lfsFile":
                    hub["files"][line["value"]["path"]] = hub["lfs"][line["value"]["oid"]]
            url = f"{self.server.url}/me/shapes/commit/{'a' * 40}"
            self._answer({"commitUrl": url, "commitOid": "a" * 40, "pullRequestUrl": None})

    def do_GET(self):
        """Describes the repository."""
        private = self.server.hub["is_private"]
        self._answer({"id": "me/shapes", "private": private, "siblings": [], "tags": []})

    def do_PUT(self):
        """Takes a large file."""
        content = self._body()
        self.server.hub["lfs"][hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def _body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _answer(self, value, status=200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def stand_in(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.hub = {"asked": [], "refuses": False, "is_private": True, "files": {}, "lfs": {}}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "shapes"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(3000))
    return folder


def test_what_was_listed_arrives_and_nothing_else(stand_in, export):
    upload = hub.gather(export, "me/shapes", FACTS)
    url = hub.push(upload, "me/shapes", private=True, endpoint=stand_in.url)
    found = stand_in.hub
    assert url.endswith("/commit/" + "a" * 40)
    assert found["repo"]["name"] == "shapes" and "private" in json.dumps(found["repo"])
    assert sorted(found["files"]) == ["README.md", "config.json", "model.safetensors"]
    assert found["files"]["model.safetensors"] == bytes(3000)
    assert b'DIR = "me/shapes"  # on the hub' in found["files"]["README.md"]
    assert (found["metadata"]["license"], found["metadata"]["language"]) == ("mit", ["lv"])
    assert (export / "README.md").read_text() == CARD
    assert all(
        token == "Bearer hf_of_a_test" for path, token in found["asked"] if "lfs" not in path
    )


def test_nothing_private_goes_to_a_public_repository(stand_in, export):
    stand_in.hub["is_private"] = False
    with pytest.raises(UserError, match="--private: me/shapes is there already, and public"):
        hub.push(hub.gather(export, "me/shapes", FACTS), "me/shapes", True, stand_in.url)
    assert not stand_in.hub["files"] and not stand_in.hub["lfs"]


def test_files_are_listed_with_their_sizes(export):
    lines = hub.gather(export, "me/shapes", FACTS).lines()
    assert any(line.split() == ["3,000", "model.safetensors"] for line in lines)
    assert lines[-1].endswith("bytes in 3 files")


@pytest.mark.parametrize(
    "name", ["pairs.csv", ".env", "photo.jpg", "report.html", "sub/config.json", "notes.py"]
)
def test_a_file_that_no_export_writes_stops_it(export, name):
    (export / name).parent.mkdir(exist_ok=True)
    (export / name).write_text("private")
    with pytest.raises(UserError, match=f"holds {name}, which no export writes"):
        hub.gather(export, "me/shapes", FACTS)


def test_a_link_to_elsewhere_stops_it(export, tmp_path):
    (tmp_path / "secret").write_text("private")
    (export / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"tokenizer\.json, which no export writes"):
        hub.gather(export, "me/shapes", FACTS)


def test_folders_that_are_no_export_are_one_sentence(export, tmp_path, tiny_run):
    for folder, words in [
        (tmp_path / "nowhere", "there is no folder"),
        (tmp_path, "is no export"),
        (tiny_run, "is the work directory of a run; write --workdir"),
    ]:
        with pytest.raises(UserError, match=words):
            hub.gather(folder, "me/shapes", FACTS)


@pytest.mark.parametrize("repo", ["shapes", "me/a b", "a/b/c", "me/a--b"])
def test_names_that_are_no_repository_are_one_sentence(repo):
    with pytest.raises(UserError, match=r"--repo: [^\n]*USER/NAME"):
        hub.check_repo(repo)


def test_without_a_token_nothing_is_asked(stand_in, export, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="there is no token"):
        hub.push(hub.gather(export, "me/shapes", FACTS), "me/shapes", False, stand_in.url)
    assert not stand_in.hub["asked"]


def test_a_hub_that_refuses_or_is_not_there_is_one_sentence(stand_in, export):
    upload = hub.gather(export, "me/shapes", FACTS)
    stand_in.hub["refuses"] = True
    with pytest.raises(UserError, match=r"the hub refused me/shapes \(.*rights") as error:
        hub.push(upload, "me/shapes", False, stand_in.url)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="could not be uploaded") as error:
        hub.push(upload, "me/shapes", False, "http://127.0.0.1:9")
    assert "\n" not in str(error.value)


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        command.run(push_command.main, ["push", *words])
    return end.value.code or 0, *capsys.readouterr()


def test_a_dry_run_lists_and_sends_nothing(stand_in, export, capsys):
    words = [f"--export={export}", "--repo=me/shapes", "--dry_run", "--license=mit"]
    code, printed, said = run(capsys, *words)
    assert not code and "model.safetensors" in printed and "nothing was sent" in printed
    assert "does not state: language, base_model, datasets" in said
    assert not stand_in.hub["asked"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "error: --export: write the directory"),
        (["--export=x", "--workdir=y"], "error: --export: write the directory"),
        (["--export=x"], "error: --repo: expected USER/NAME"),
        (["--export=x", "--repo=me/x", "--license=mitt"], "did you mean 'mit'"),
    ],
)
def test_wrong_flags_are_one_sentence(capsys, words, sentence):
    code, _, said = run(capsys, *words)
    assert code == 1 and sentence in said and said.count("\n") == 1
