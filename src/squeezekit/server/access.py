"""Who may send requests: the host names that a server answers to, and the pages that may use it.

A web page from elsewhere can make a browser send requests to any address that the browser reaches.
With DNS rebinding (the page's own name leads to this machine) it could read the answers too. Such a
request has the page's name in its Host header; other clients have no reason to send that name.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from aiohttp import web

from squeezekit.errors import InputError

ANY = "*"

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(:\d{1,5})?")
_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(:\d{1,5})?")


@dataclass(frozen=True)
class Access:
    """Who may send requests.

    Attributes:
        hosts: host names that the server answers to, in addition to addresses, localhost and the
            name that it listens on; "*" is any.
        origins: the origins of web pages that may ask and read the answers, such as
            "https://example.org"; "*" is any page. Pages that the server itself has sent always
            may.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.origins:
            if origin not in (ANY, "null") and not _ORIGIN.fullmatch(origin):
                raise InputError(f"{origin!r} is not an origin: write it like https://example.org")
        for host in self.hosts:
            if host != ANY and not _HOST.fullmatch(host):
                raise InputError(
                    f"{host!r} is not a host: write it like example.org, without a path"
                )

    def answers_to(self, host: str | None) -> bool:
        """Whether a Host header, None if there is none, names this server."""
        if host is None or ANY in self.hosts:  # browsers always send one
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].lower().removesuffix(".")
        known = {each.lower() for each in self.hosts}
        if name == "localhost" or name.endswith(".localhost") or {name, host.lower()} & known:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))  # no page elsewhere has it as its name
        except ValueError:
            return False
        return True

    def reads(self, origin: str) -> bool:
        """Whether pages of an origin may read answers."""
        return ANY in self.origins or origin in self.origins

    def refusal(self, request: web.Request) -> str:
        """Why a request is refused, in a sentence; empty if it is not."""
        host = request.headers.get("Host")
        if not self.answers_to(host):
            return (
                "this server does not answer to the name that was asked for: start it with "
                "--allow-host NAME"
            )
        origin = request.headers.get("Origin")
        if origin is None or self.reads(origin):
            return ""
        if host is not None and origin in (f"http://{host}", f"https://{host}"):
            return ""  # a page of its own
        return "this web page may not ask: start the server with --cors ORIGIN"

    def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that a browser needs to read the answer."""
        response.headers["X-Content-Type-Options"] = "nosniff"
        if not self.origins:
            return
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("Origin")
        if origin is not None and self.reads(origin):
            given = ANY if ANY in self.origins else origin
            response.headers["Access-Control-Allow-Origin"] = given
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = "GET, POST"
                response.headers["Access-Control-Allow-Headers"] = "Content-Type"
                response.headers["Access-Control-Max-Age"] = "86400"


BY_ADDRESS = Access()
"""Clients that use an address or localhost, and only the server's own pages."""
