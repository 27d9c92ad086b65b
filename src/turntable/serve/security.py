"""Who may see the live page and who may change anything: decisions on plain data, nothing is sent or stored here.

A browser that opens the page gets a **session**: a random number with a signature, in a cookie that no script can read
and that no other site's request carries. Where a token is needed, a session is given only for the token, once, and the
cookie stands for it from then on. Every change needs a POST from a page of this very origin, with the session's **CSRF
token** in the form: a signature of the session, which no other site can know.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

METHODS = ("GET", "HEAD", "POST")

LEAST_TOKEN = 16
"""A token of fewer characters could be guessed."""

PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; frame-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""For every HTML page but scenes. No inline script runs, whatever got into a page, and none is shown in another: somebody
else's report could lay our buttons under what it says."""

SCENE_CSP = (
    "sandbox allow-scripts; default-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob: data:; connect-src 'self' data: blob:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
"""For the static 3D views, whose client is made of inline scripts. The sandbox gives them an origin of their own: they can
neither read another page nor send anything with the user's cookies."""

FILE_CSP = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""For whatever is no page: a picture, a video, a log."""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_is_ours(header: str | None, port: int, loopback: bool) -> bool:
    """Whether a request's ``Host`` names this server.

    On loopback only this machine's own names do: a page of elsewhere whose name was made to lead to 127.0.0.1 (DNS
    rebinding) still sends its own name. Where there is a token any name does (``loopback`` is False then): nobody gets in
    without it, and a proxy passes on the name that it is called by.
    """
    if not header or not re.fullmatch(r"[A-Za-z0-9.:\[\]_-]{1,255}", header):
        return False
    if not loopback:
        return True
    name, _, number = header.rpartition(":")
    if not name or header.endswith("]"):
        name, number = header, "80"
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    return number == str(port) and is_loopback(bare.lower())


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a page of this server, by what only a browser writes into its headers.

    ``Origin`` must name the host that was asked; where a browser hides it, ``Sec-Fetch-Site`` must say so.
    """
    site, origin, host = headers.get("sec-fetch-site"), headers.get("origin"), headers.get("host")
    if site not in (None, "same-origin"):
        return False
    if origin in (None, "null"):
        return site == "same-origin"
    try:
        parts = urlsplit(origin)
    except ValueError:  # such as http://[
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == str(host).lower()


def token_matches(given: str, token: str) -> bool:
    """Whether a token is the right one; how long it takes tells nothing about it."""
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


@dataclass(frozen=True)
class Keeper:
    """Whom one server process lets in.

    Args:
        port: where it listens; cookies of several servers on one machine are told apart by it.
        loopback: whether it listens on a loopback address.
        token: what a viewer must know; None: nothing.
        secret: what sessions are signed with; new in every process.
    """

    port: int
    loopback: bool = True
    token: str | None = None
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def cookie(self) -> str:
        """The session cookie's name."""
        return f"turntable-{self.port}"

    def new_session(self) -> str:
        """A session, as its cookie holds it."""
        number = secrets.token_urlsafe(18)
        return f"{number}.{self._sign('session', number)}"

    def is_session(self, session: str | None) -> bool:
        """Whether this process gave that session."""
        number, _, signature = (session or "").partition(".")
        return secrets.compare_digest(self._sign("session", number).encode(), signature.encode())

    def csrf(self, session: str) -> str:
        """The token that forms of this session's pages carry."""
        return self._sign("change", session)

    def may_change(self, session: str | None, given: str | None) -> bool:
        """Whether ``given`` is the CSRF token of a session that we gave."""
        if session is None or not self.is_session(session):
            return False
        return secrets.compare_digest(self.csrf(session).encode(), (given or "").encode("utf-8", "replace"))

    def _sign(self, what: str, text: str) -> str:
        return hmac.new(self.secret, f"{what}:{text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def page_headers(csp: str, cache: str = "no-store", referrer: str = "no-referrer") -> dict[str, str]:
    """The headers that every answer carries.

    Args:
        csp: its Content-Security-Policy.
        cache: its Cache-Control.
        referrer: its Referrer-Policy. Pages with forms say ``same-origin``: under ``no-referrer`` browsers hide a form's
            origin, by which we know that it was our page's.
    """
    return {
        "content-security-policy": csp,
        "x-content-type-options": "nosniff",
        "referrer-policy": referrer,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": cache,
    }
