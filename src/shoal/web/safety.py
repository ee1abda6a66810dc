"""Who may ask, and what a browser may do with the answer.

On a loopback address whoever is on this machine may look; a page of another site may not (its
requests carry another Host or Origin), nor may it make anything happen (it cannot read the guard).
On any other address a token is needed as well.
"""

import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from hmac import compare_digest
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE, GUARD = "shoal-token", "x-shoal-guard"
# plotly.js sets styles as it draws; no script but ours runs, and nothing is asked of anybody else
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with "no-referrer" a form is posted with an origin of null
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
OPEN = ("/login", "/static/shoal.css")  # what is shown to whoever has no token


@dataclass(frozen=True)
class Door:
    """Who is let in.

    Args:
        host: the address that is listened on.
        token: what has to be known; None: nothing, which is for a loopback address only.
        names: under which names a browser may call this machine, besides those that are known.
        guard: what a page has to know that is to make something happen.
    """

    host: str
    token: str | None
    names: frozenset[str] = frozenset()
    guard: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def knows(self, name: str) -> bool:
        """Whether `name`, of a Host header, is this machine's."""
        name = name.lower()
        if is_loopback(name) or name in self.names or name == self.host.lower():
            return True
        if self.token is None:
            return False
        return is_address(name) or name in {socket.gethostname().lower(), socket.getfqdn().lower()}

    def admits(self, given: str | None) -> bool:
        """Whether `given` is the token, if there is one."""
        if self.token is None:
            return True
        return given is not None and compare_digest(given.encode(), self.token.encode())

    def guarded(self, given: str | None) -> bool:
        """Whether `given` is the guard."""
        return given is not None and compare_digest(given.encode(), self.guard.encode())


class Guarded:
    """Lets in who may come in, and tells browsers what they may do."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, told)

    def _refusal(self, scope: Scope) -> Response | None:
        door, headers, path = self._door, Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if not door.knows(name_in(host)):
            return refused(403, f"{name_in(host)[:80]!r} is not a name of this machine")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return refused(403, "this comes from the page of another site")
        bearer = headers.get("authorization", "")
        carried = bearer.removeprefix("Bearer ") if bearer.startswith("Bearer ") else None
        known = door.admits(carried) or door.admits(cookie_in(headers, host))
        if not known and path not in OPEN:
            if path.startswith("/api/"):
                return refused(401, "a token is needed: `Authorization: Bearer TOKEN`")
            return RedirectResponse("login", status_code=303)
        safe = scope["method"] in {"GET", "HEAD", "OPTIONS"}
        by_token = door.token is not None and door.admits(carried)
        if not safe and path != "/login" and not by_token and not door.guarded(headers.get(GUARD)):
            return refused(403, "the guard is missing: see GET /api/guard")
        return None


def refused(code: int, why: str) -> Response:
    """An answer that is none."""
    headers = {"www-authenticate": "Bearer"} if code == 401 else {}
    return JSONResponse({"error": why}, code, headers)


def name_in(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def cookie_in(headers: Headers, host: str) -> str | None:
    """The token that a browser has kept for this server."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except Exception:  # noqa: BLE001 (whatever somebody sent)
        return None
    found = cookies.get(cookie_name(host))
    return None if found is None else found.value


def cookie_name(host: str) -> str:
    """What the cookie is called: browsers keep one for all ports of a machine."""
    return f"{COOKIE}-{host.rpartition(':')[2] if ':' in host else '80'}".replace("]", "")


def is_loopback(name: str) -> bool:
    """Whether `name` leads to this machine and nowhere else."""
    if name == "localhost":
        return True
    return is_address(name) and ipaddress.ip_address(name).is_loopback


def is_address(name: str) -> bool:
    """Whether `name` is a number, for which no name server is asked."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
