"""Who may ask: the names that a server answers to, and the web pages that may use it.

A page from elsewhere can have a browser send requests to any address that the browser reaches, and
by DNS rebinding read the answers too: its own name then leads to this machine. Such a request has
that name in its Host header, which no other client has any reason to send.
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
    """Who may ask.

    Attributes:
        hosts: names that the server answers to besides addresses, localhost and the name that it
            listens at; "*" is any.
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
        """Why a request is not answered, in a sentence; empty if it is."""
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
        """What a browser must know of an answer."""
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
"""Clients that use an address or localhost, and no pages but the server's own."""
