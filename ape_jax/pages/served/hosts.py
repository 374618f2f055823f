"""The names under which the page may be asked for, and the pages that may ask.

A web site can give its own name the address 127.0.0.1 (DNS rebinding): its script then reads the
page of this machine as if it were its own. The browser still sends the name, so names are checked.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from ape_jax.errors import UserError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_WHOLE_NETWORK = ("", "0.0.0.0", "::")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
# What a browser says of a request that no other site has caused.
_OWN = ("same-origin", "none")


class Hosts:
    """Which `Host` and `Origin` are taken.

    Loopback names are taken with any port, since a tunnel (`ssh -L 8000:localhost:7860`) changes
    it, and no other site can send them. What listens at all addresses takes any address, but no
    name other than the machine's own.

    Args:
      host: the address or name that the page listens at.
      port: its port.
      allowed: names of a proxy before it, with any port.

    Raises:
      UserError: a name of a proxy is none.
    """

    def __init__(self, host: str, port: int, allowed: Collection[str] = ()):
        for name in allowed:
            if not (_NAME.fullmatch(name) or is_address(name)):
                raise UserError(
                    f"--allow_host: {name[:200]!r} is no name of a host; write names such as "
                    "photos.example.org, without a scheme and a port"
                )
        self._any_port = {*_LOOPBACK, *(name.lower() for name in allowed)}
        self._own_port = {host.lower()}
        self._any_address = host in _WHOLE_NETWORK
        if self._any_address:
            self._own_port |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._port = port

    def refusal(self, headers: Mapping[str, list[str]], navigates: bool) -> str:
        """Why a request is not taken, in one sentence; '' where it is.

        Args:
          headers: values by lower-case name.
          navigates: whether it asks for a page that a link may lead to.
        """
        named = headers.get("host", [])
        if len(named) != 1 or not self.takes(named[0]):
            found = ", ".join(named)[:200] or "nothing"
            return (
                f"the page is not known as {found}; ask for the address that the terminal "
                "names, or start it with --allow_host=NAME"
            )
        # What the browser was asked for, where a proxy says it; the page's own links begin with it.
        for found in headers.get("x-forwarded-host", []):
            if not self.takes(found):
                return f"the page is not known as {found[:200]}; start it with --allow_host=NAME"
        for origin in headers.get("origin", []):
            if not self._is_own(origin, named[0]):
                return f"another site ({origin[:200]}) asks, which may not read this page"
        site = headers.get("sec-fetch-site", ["none"])[0]
        opens = navigates and headers.get("sec-fetch-dest", ["document"]) == ["document"]
        if site not in _OWN and not opens:
            return "another site asks, which may not read this page"
        return ""

    def takes(self, host: str) -> bool:
        """Whether a value of `Host` names this page."""
        name, port = _split(host)
        if not name:
            return False
        if name in self._any_port:
            return True
        known = name in self._own_port or (self._any_address and is_address(name))
        return known and port == self._port

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https") or not rest:
            return False
        # A proxy may write its own name for the page in Host.
        name, _ = _split(rest)
        return rest.lower() == host.lower() or (
            name in self._any_port and name not in _LOOPBACK and self.takes(rest)
        )


def is_address(name: str) -> bool:
    """Whether this is an IP address and no name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    return ipaddress.ip_address(host).is_loopback if is_address(host) else host == "localhost"


def _split(host: str) -> tuple[str, int]:
    """Name and port of `Host`; an empty name where it is none."""
    if re.search(r"[^A-Za-z0-9.:_\[\]-]", host):
        return "", 0
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname or "", parts.port or 80
    except ValueError:
        return "", 0
    return name.lower(), port
