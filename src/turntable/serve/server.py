"""The live page as a process: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from ..errors import TurntableError
from .app import make_app
from .security import LEAST_TOKEN, Keeper, is_loopback
from .stream import PATIENCE_S

DEFAULT_PORT = 8650
GRACE_S = 1
"""A viewer that takes nothing is waited for no longer when the server ends."""


def read_token(file: Path) -> str:
    """The token that a file holds, without the blanks around it.

    Raises:
        TurntableError: there is no such file, or the token is too short.
    """
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TurntableError(
            f"--token-file is a text file with a token, but {file} can't be read: {error}."
        ) from None
    if len(token) < LEAST_TOKEN or not token.isprintable():
        raise TurntableError(
            f"A token has at least {LEAST_TOKEN} characters, all on one line; that of {file} has {len(token)}. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; ``port`` 0 is any that is free.

    Raises:
        TurntableError: there is no such address here, or the port is taken or not allowed.
    """
    remedies = {
        errno.EADDRINUSE: "another program has it; choose another --port (0 for any that is free)",
        errno.EACCES: "permission denied; choose a --port from 1024 on",
        errno.EADDRNOTAVAIL: "this machine has no such address; choose another --host",
    }
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if user_timeout := getattr(socket, "TCP_USER_TIMEOUT", None):  # Linux
                # What was written to a viewer that reads nothing would be kept for it even when its answer has ended.
                found.setsockopt(socket.IPPROTO_TCP, user_timeout, round(1000 * PATIENCE_S))
            found.bind(address)
            found.listen(1024)
        except OSError:
            found.close()
            raise
    except socket.gaierror as error:
        raise TurntableError(
            f"--host is an address of this machine; {host!r} is none ({error.strerror})."
        ) from None
    except OSError as error:
        why = remedies.get(error.errno or 0, error.strerror or str(error))
        raise TurntableError(f"Can't listen on {host}, port {port}: {why}.") from None
    return found


def address(host: str, port: int, token: str | None) -> str:
    """What to open in a browser."""
    # All of this machine's addresses: there it is opened by one of them, elsewhere by its name.
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def serve(
    bench_folder: Path, listening: socket.socket, token: str | None, lang: str, ready: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        bench_folder: the bench; it exists.
        listening: see :func:`listen`.
        token: what viewers must know; None: nothing.
        lang: the language of the page.
        ready: called when requests are answered.

    Raises:
        TurntableError: there is no such language.
    """
    host, port = listening.getsockname()[:2]
    keeper = Keeper(port, is_loopback(host), token)
    app = make_app(bench_folder, keeper, lang)
    config = uvicorn.Config(
        app,
        access_log=False,  # addresses may hold the token
        date_header=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
    )
    server = _Server(config, app.state.stream.close, ready)
    asyncio.run(server.serve(sockets=[listening]))


class _Server(uvicorn.Server):
    """Lets viewers go when it is to end: uvicorn would wait for them, and they wait for what happens next."""

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None], ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._let_go = let_go
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        self._let_go()
        self.handle_exit(number, None)
