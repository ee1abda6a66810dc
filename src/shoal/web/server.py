"""`shoal ui`: the server, from the first line that it prints to its end."""

import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn

from shoal.home import ExperimentError
from shoal.web.app import app
from shoal.web.safety import Door, is_loopback

PORT, TRIES = 8450, 20  # where it is found by default, and how many ports after it are tried
CLOSING_S = 1  # how long pages that listen are waited for


class Server(uvicorn.Server):
    """A server that lets listening pages go when it ends."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.events.close()  # type: ignore[union-attr] # ours
        await super().shutdown(sockets)


def serve(  # noqa: PLR0917 (a command's options)
    home: Path,
    host: str,
    port: int | None,
    token: str | None,
    names: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Serve the experiments in `home` until interrupted.

    Args:
        home: where experiments are kept.
        host: the address to listen on.
        port: the port; None for the first free one from 8450 on.
        token: what has to be known; where that is needed and nothing is given, it is drawn.
        names: under which further names a browser may call this machine.
        tell: is told where the page is.

    Raises:
        ExperimentError: there is nothing to be listened on.
    """
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    door = Door(host, token, frozenset(name.lower() for name in names))
    listening = bound(host, port)
    tell(address(listening, host, token))
    config = uvicorn.Config(
        app(home, door), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=CLOSING_S, proxy_headers=False,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])


def bound(host: str, port: int | None) -> socket.socket:
    """A socket that listens at `host`.

    Raises:
        ExperimentError: there is no such address, or no free port.
    """
    ports = range(PORT, PORT + TRIES) if port is None else (port,)
    for one in ports:
        try:
            family, kind, *_, place = socket.getaddrinfo(host, one, type=socket.SOCK_STREAM)[0]
            made = socket.socket(family, kind)
        except OSError as error:
            raise ExperimentError(f"there is no address {host!r} here: {error.strerror}") from error
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(place)
            made.listen(128)
        except OSError as error:
            made.close()
            reason = error.strerror
        else:
            return made
    where = f"port {port}" if port is not None else f"the ports {PORT} to {PORT + TRIES - 1}"
    raise ExperimentError(f"{where} of {host} cannot be had: {reason}. Name another with --port.")


def address(listening: socket.socket, host: str, token: str | None) -> str:
    """The address of the page, as it is typed into a browser."""
    port = listening.getsockname()[1]
    everywhere = host in {"0.0.0.0", "::"}  # noqa: S104 (the user's choice, and with a token)
    name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    base = f"http://{name}:{port}/"
    return base if token is None else f"{base}login?token={token}"
