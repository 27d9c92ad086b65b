"""The door to a container, on this side: what a run's process gets from us, for one that can't inherit it.

A container's first process (:mod:`turntable.worker.inside`) connects to a socket of the file system and is told what to run,
with the descriptors that a child would inherit: so the run's lock and the device's are held in there, whichever engine it
is, and the worker has its channel. The connection stays: the container ends when it is closed, also by our death.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from ..environments.container import NO_FILE, NO_FOLDER, SOCKET

POLL_S = 0.05
LONGEST_JOIN_S = 5.0


class Door:
    """Opened before the container is started, and closed when it is to end."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            OSError: the folder for temporary files can't be written.
        """
        # A socket's path holds 107 bytes at most: neither a bench's folder nor a TMPDIR is sure to be that short.
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        self.folder = Path(
            tempfile.mkdtemp(prefix="turntable-", dir=runtime if os.access(runtime, os.W_OK) else "/tmp")
        )
        (self.folder / NO_FOLDER).mkdir(mode=0o555)
        (self.folder / NO_FILE).touch(mode=0o444)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.folder / SOCKET))
        self._socket.listen(1)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lifeline: socket.socket | None = None
        self.first: psutil.Process | None = None
        """The container's first process, once it has come; None too where the engine's machine is another than ours."""

    @property
    def passed(self) -> bool:
        """Whether a container has come, and been told what to run."""
        return self._lifeline is not None

    def hand_over(
        self,
        message: dict[str, Any],
        channel: Sequence[int],
        locks: Sequence[int],
        alive: Callable[[], bool],
    ) -> None:
        """Tell the container what to run as soon as it has come to the door; returns at once.

        Args:
            message: see :func:`turntable.environments.container.message`.
            channel: descriptors that what it runs is to have; they may be closed here afterwards.
            locks: those that it holds itself as long as it lives.
            alive: whether there is any hope that it comes.
        """
        text = json.dumps({**message, "descriptors": list(channel)}).encode() + b"\n"
        # Ours until they are handed over, or nobody comes: then whoever waits at their other end sees it close.
        own = [os.dup(descriptor) for descriptor in (*channel, *locks)]
        self._thread = threading.Thread(target=self._wait, args=(text, own, alive), daemon=True)
        self._thread.start()

    def _wait(self, text: bytes, descriptors: list[int], alive: Callable[[], bool]) -> None:
        try:
            while not self._closed.is_set() and alive():
                if select.select([self._socket], [], [], POLL_S)[0]:
                    connection, _ = self._socket.accept()
                    # Before it is told anything, or it might have started something that nobody knows.
                    with contextlib.suppress(psutil.NoSuchProcess):
                        self.first = psutil.Process(pid) if (pid := _peer(connection)) else None
                    # One that died at the door has closed it: its end is seen where it is waited for.
                    with contextlib.suppress(OSError):
                        sent = socket.send_fds(connection, [text], descriptors)
                        connection.sendall(text[sent:])
                    self._lifeline = connection
                    return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            self._socket.close()
            # What is mounted stays mounted.
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """End the container, if it lives still."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(LONGEST_JOIN_S)
        else:
            self._socket.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lifeline is not None:
            self._lifeline.close()


def _peer(connection: socket.socket) -> int:
    """The number that the process at the other end has here, not in there; 0 if it has none. (unix(7), SO_PEERCRED)"""
    credentials = struct.Struct("iII")
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    return int(credentials.unpack(packed)[0])
