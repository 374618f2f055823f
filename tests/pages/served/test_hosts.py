"""Under which names the page is known, and which sites may ask."""

import socket

import pytest

from ape_jax.errors import UserError
from ape_jax.pages.served.hosts import Hosts

_OWN = Hosts("127.0.0.1", 7860)
_ALL = Hosts("0.0.0.0", 7860)
_NAMED = Hosts("192.168.1.5", 80, ["photos.example.org"])


@pytest.mark.parametrize(
    ("hosts", "taken", "refused"),
    [
        (
            _OWN,
            ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST:8000", "localhost"],
            [
                *(
                    "evil.example:7860",
                    "evil.example",
                    "192.168.1.5:7860",
                    "127.0.0.1.evil.example",
                ),
                *("localhost@evil.example", "evil.example#localhost", "localhost/", "local host"),
                *(
                    "localhost:x",
                    "[::1",
                    "localhost:7860, evil.example",
                    "127.1:7860",
                    "",
                    "2130706433",
                ),
            ],
        ),
        (
            _ALL,
            ["192.168.1.5:7860", "[fe80::1]:7860", f"{socket.gethostname()}:7860", "localhost"],
            ["192.168.1.5:80", "192.168.1.5", "evil.example:7860", "1.2.3.4.evil.example:7860"],
        ),
        (
            _NAMED,
            ["192.168.1.5", "192.168.1.5:80", "photos.example.org", "photos.example.org:8443"],
            ["192.168.1.6", "192.168.1.5:81", "example.org", "xphotos.example.org"],
        ),
    ],
    ids=["loopback", "all", "named"],
)
def test_a_host_is_taken_where_it_is_this_page(hosts, taken, refused):
    assert [host for host in taken if not hosts.takes(host)] == []
    assert [host for host in refused if hosts.takes(host)] == []


@pytest.mark.parametrize(
    ("headers", "navigates", "words"),
    [
        ({"host": ["localhost:7860"]}, False, ""),
        ({"host": ["localhost:7860"], "origin": ["http://localhost:7860"]}, False, ""),
        ({"host": ["localhost:7860"], "sec-fetch-site": ["same-origin"]}, False, ""),
        ({"host": ["localhost:7860"], "sec-fetch-site": ["none"]}, True, ""),
        ({"host": ["localhost:7860"], "sec-fetch-site": ["cross-site"]}, True, ""),
        (
            {"host": ["localhost:7860"], "sec-fetch-site": ["cross-site"]}
            | {"sec-fetch-dest": ["iframe"]},
            True,
            "another site asks",
        ),
        ({"host": ["localhost:7860"], "sec-fetch-site": ["cross-site"]}, False, "another site"),
        ({"host": ["localhost:7860"], "sec-fetch-site": ["same-site"]}, False, "another site"),
        (
            {"host": ["localhost:7860"], "origin": ["http://localhost:8000"]},
            False,
            "localhost:8000",
        ),
        ({"host": ["localhost:7860"], "origin": ["null"]}, False, "null"),
        ({"host": ["localhost:7860"], "origin": ["file://"]}, False, "file"),
        ({"host": ["localhost:7860"], "origin": ["https://evil.example"]}, False, "evil.example"),
        (
            {"host": ["localhost:7860"]}
            | {"origin": ["http://localhost:7860", "https://evil.example"]},
            False,
            "evil.example",
        ),
        ({"host": ["evil.example:7860"]}, True, "not known as evil.example"),
        ({"host": ["localhost:7860", "evil.example"]}, True, "not known as"),
        ({}, True, "not known as nothing"),
        ({"host": ["localhost"], "x-forwarded-host": ["evil.example"]}, True, "evil.example"),
    ],
)
def test_who_asks_is_checked(headers, navigates, words):
    refused = _OWN.refusal(headers, navigates)
    assert words in refused and bool(words) == bool(refused) and "\n" not in refused


def test_a_proxy_may_write_its_own_name_in_host():
    hosts = Hosts("127.0.0.1", 7860, ["photos.example.org"])
    headers = {"host": ["127.0.0.1:7860"], "origin": ["https://photos.example.org"]}
    assert hosts.refusal(headers, False) == ""
    assert hosts.refusal({**headers, "origin": ["https://example.org"]}, False)


@pytest.mark.parametrize("name", ["https://a.org", "a.org:80", "a b", "", "*", "a.org/x", "-"])
def test_what_is_no_name_of_a_host_is_one_sentence(name):
    with pytest.raises(UserError, match=r"--allow_host: .* is no name of a host"):
        Hosts("127.0.0.1", 7860, [name])
