"""What is said where a tower cannot be had from the Hugging Face hub."""

import httpx
import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from ape_jax.errors import UserError
from ape_jax.towers.files import hub, sources

SPEC = "hf:org/name@v1"


def response(status):
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/org/name"))


FAILURES = {
    "gated": (
        errors.GatedRepoError("Cannot access gated repo\nmore", response=response(403)),
        r"is gated: accept its licence on https://huggingface\.co/org/name .*`hf auth login`",
    ),
    "not logged in": (
        errors.RepositoryNotFoundError("401 Client Error", response=response(401)),
        r"is not on the Hugging Face hub, or is private; check the name on https://.*org/name, and",
    ),
    "not there": (
        errors.RepositoryNotFoundError("404 Client Error", response=response(404)),
        r"is not on the Hugging Face hub, or is private; check the name",
    ),
    "no such revision": (
        errors.RevisionNotFoundError("404 Client Error", response=response(404)),
        r"has no revision 'v1'; https://huggingface\.co/org/name/tree/main shows",
    ),
    "forbidden": (
        errors.HfHubHTTPError("403 Forbidden", response=response(403)),
        r"may not be read \(403\); accept its conditions .*the right to read it",
    ),
    "disabled": (
        errors.DisabledRepoError("403", response=response(403)),
        r"may not be read \(403\)",
    ),
    "too many requests": (
        errors.HfHubHTTPError("429", response=response(429)),
        r"limits requests \(429\); log in with `hf auth login`",
    ),
    "a broken server": (
        errors.HfHubHTTPError("502 Bad Gateway\nmore", response=response(502)),
        r"could not be fetched .*\(502 Bad Gateway\); check the name and the network",
    ),
    "no network": (
        httpx.ConnectError("Name or service not known"),
        r"could not be fetched .*\(Name or service not known\); check the name and the network",
    ),
    "no words": (OSError(), r"could not be fetched .*\(OSError\)"),
}


def fails(monkeypatch, error):
    def refuse(repository, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError) as found:
        sources.resolve(SPEC)
    message = str(found.value)
    assert "\n" not in message and message.startswith(f"tower {SPEC!r} ")
    return message


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_says_what_to_do(monkeypatch, name):
    import re

    error, match = FAILURES[name]
    message = fails(monkeypatch, error)
    assert re.search(match, message), message


def test_offline_names_the_variable(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = fails(monkeypatch, errors.LocalEntryNotFoundError("not cached"))
    assert "HF_HUB_OFFLINE forbids to fetch it; unset that once" in message


@pytest.mark.parametrize("files", [["pytorch_model.bin", "config.json"], ["tf_model.h5"]])
def test_a_repository_of_pickled_weights_alone_says_how_to_convert_them(
    monkeypatch, tmp_path, files
):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *a, **k: files)
    with pytest.raises(UserError, match=r"from_pretrained\('org/name'\)\.save_pretrained") as error:
        hub.snapshot(SPEC)
    assert "can run code when it is read" in str(error.value)


def test_names_of_repositories():
    assert all(map(hub.is_name, ("facebook/dinov2-small", "a.b/c-d_e", "bert-base-uncased")))
    assert not any(map(hub.is_name, ("a/b/c", "/a/b", "a/b@v1", "../a", ".", "")))
