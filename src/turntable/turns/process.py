"""A worker process: started, talked to, and ended with everything it started.

It has a process group of its own, so that Ctrl-C in the terminal reaches the supervisor alone, and it
inherits the run's lock, so that nobody starts the run again while it lives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, NoReturn

import psutil

from ..worker import protocol

WORKER = Path(protocol.__file__).parent / "__main__.py"
GRACE_S = 5.0
LONGEST_CAUSE = 500
OUT_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class WorkerFailed(Exception):
    """The worker failed: the message is the cause, one line."""


class WorkerProcess:
    """A worker and the socket to it."""

    def __init__(self, python: str, folder: Path, log: IO[bytes], lock: IO[bytes], patience_s: float) -> None:
        """Start a worker.

        Args:
            python: the interpreter of the method's environment.
            folder: its working folder.
            log: where its output goes.
            lock: the run's lock, to be inherited.
            patience_s: how long, in seconds, it may say nothing before it counts as hung.
        """
        self.patience_s = patience_s
        self._folder = folder
        self._kills_before = out_of_memory_kills()
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
        with theirs:
            self._process = subprocess.Popen(
                [python, str(WORKER), str(theirs.fileno())],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(), lock.fileno()),
                start_new_session=True,
            )
        self._channel = protocol.Channel(ours)
        self.pid = self._process.pid

    def greet(self) -> dict[str, Any]:
        """Exchange hellos; the worker's.

        Raises:
            WorkerFailed: it doesn't start, or speaks another protocol.
        """
        hello = self.await_("hello")
        if hello.get("protocol") != protocol.VERSION:
            raise WorkerFailed(
                f"the worker speaks protocol {hello.get('protocol')!r}, not {protocol.VERSION}"
            )
        self.send("hello", protocol=protocol.VERSION)
        return hello

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message.

        Raises:
            WorkerFailed: the worker has died.
        """
        try:
            self._channel.send(kind, **fields)
        except protocol.Closed:
            self._raise_why_it_died()

    def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            WorkerFailed: it says that it failed, it has died, it talks nonsense, or it has said nothing for
                ``patience_s``.
            OSError: the worker found the disk full: no fault of the method, so the run isn't failed by it.
        """
        try:
            message = self._channel.receive(self.patience_s)
        except protocol.Closed:
            self._raise_why_it_died()
        except ValueError as error:
            raise WorkerFailed(f"the worker sent what is no message ({error})") from None
        if message is None:
            raise WorkerFailed(f"hung: no message for {self.patience_s:g} s (--patience)")
        if message["type"] == "failed":
            if self._is_the_disks_fault(message):
                raise OSError(message["errno"], os.strerror(message["errno"]), str(self._folder))
            raise WorkerFailed(printable(message["cause"]))
        return message

    def _is_the_disks_fault(self, message: dict[str, Any]) -> bool:
        """Whether the bench's disk is full, or became read-only: not every such error of a method is about the bench."""
        file = message.get("file")
        inside = file is not None and (self._folder / file).resolve().is_relative_to(self._folder.resolve())
        return message.get("errno") in OUT_OF_DISK and (
            inside or (file is None and message["errno"] == errno.ENOSPC)
        )

    def await_(self, kind: str) -> dict[str, Any]:
        """The next message, which must be of this kind.

        Raises:
            WorkerFailed: as :meth:`receive`, or it is of another kind.
        """
        message = self.receive()
        expect(message, kind)
        return message

    def _raise_why_it_died(self) -> NoReturn:
        # The socket closes a moment before the process can be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        raise WorkerFailed(describe_end(self._process.returncode, out_of_memory_kills() > self._kills_before))

    def end(self) -> None:
        """End the worker and everything in its process group: asked first, killed after a grace period."""
        self._channel.close()
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
                break
        # The leader is gone; whatever it left in its group goes too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Let the worker end by itself, then make sure of it."""
        with contextlib.suppress(WorkerFailed):
            self.send("stop")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        self.end()


def printable(cause: str) -> str:
    """A cause as one line that every file, database and terminal takes."""
    line = " ".join(cause.encode("utf-8", "backslashreplace").decode().replace("\0", "").split())
    return line if len(line) <= LONGEST_CAUSE else line[:LONGEST_CAUSE] + " …"


def kill_leftovers(group: int, started: float) -> None:
    """Kill what a dead worker left behind: its children, which it can't take with it when it is killed itself.

    Args:
        group: the worker's process group, which is its process id.
        started: when the worker was started, in seconds since the epoch. A later process that has come by its number
            is left alone.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        if psutil.Process(group).create_time() > started + 1:
            return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def expect(message: dict[str, Any], kind: str) -> None:
    """Check that a message is of the kind that is due.

    Raises:
        WorkerFailed: it isn't.
    """
    if message["type"] != kind:
        raise WorkerFailed(f"the worker said {message['type']!r} where {kind!r} was due")


def describe_end(status: int | None, out_of_memory: bool) -> str:
    """Why a worker that said nothing is gone, from its exit status (negative: a signal's number)."""
    if status is None:
        return "the worker closed its socket but did not end"
    if status == -signal.SIGKILL and out_of_memory:
        return "out of memory: killed by the kernel (signal 9); use a smaller capture or settings"
    if status == -signal.SIGKILL:
        return "killed by signal 9 (SIGKILL) from outside; the kernel counted no out-of-memory kill"
    if status < 0:
        return f"crashed with signal {-status} ({signal.Signals(-status).name})"
    return f"the worker ended with status {status} without a word; see the log"


def out_of_memory_kills() -> int:
    """How many processes the Linux kernel has killed for want of memory, as far as can be seen; else 0."""
    if not sys.platform.startswith("linux"):
        return 0
    total = 0
    for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    total += int(value)
    return total
