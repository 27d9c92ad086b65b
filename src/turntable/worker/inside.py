"""``python …/inside.py SOCKET``: the first process of a container, which runs what it is told through the socket.

A container's processes are an engine's children, not ours: they inherit nothing. So the supervisor passes on by the socket
what any other run's process inherits: a program with its arguments and variables, and the worker's own channel; and the
run's lock and the device's, which are held here, where the program can't let go of them: nor get at them by ``/proc/1/fd``
or as a debugger would, since this process isn't dumpable.

The connection is a lifeline. When the supervisor closes it, or dies however that happens, this process ends; and since it
is the container's first, the kernel kills whatever is left in there, stopped or not. It has no part in pauses itself: it
isn't marked as the run's, and the program has a session of its own.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

MOST_DESCRIPTORS = 64
NOT_FOUND = 127
NOT_RUN = " can't be run in this image: "
PR_SET_DUMPABLE = 4  # prctl(2)


def shut() -> None:
    """Keep the program, which has the same user, from this process's descriptors and memory; becoming it lifts that.

    Raises:
        OSError: the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def receive(connection: socket.socket) -> Tuple[Dict[str, Any], List[int]]:
    """The one message of the supervisor, a line of JSON, and the descriptors that came with it.

    Raises:
        EOFError: the supervisor has gone.
    """
    descriptors = array.array("i")
    text = b""
    while not text.endswith(b"\n"):
        size = socket.CMSG_SPACE(MOST_DESCRIPTORS * descriptors.itemsize)
        data, extra, _, _ = connection.recvmsg(1 << 16, size)
        if not data:
            raise EOFError("the supervisor has gone")
        text += data
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = len(content) - len(content) % descriptors.itemsize
                descriptors.frombytes(content[:whole])
    return json.loads(text.decode()), list(descriptors)


def become(message: Dict[str, Any], descriptors: List[int]) -> None:
    """Become the program: in a session of its own, with its channel under the numbers that it has outside."""
    os.setsid()
    numbers = message["descriptors"]
    above = max([2, *numbers, *descriptors]) + 1
    # Out of each other's way first: one may have come as the number that another must get.
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(moved, numbers):  # noqa: B905  # Python 3.8 has no strict
        os.dup2(descriptor, number, inheritable=True)
    Path(message["home"]).mkdir(exist_ok=True)
    os.chdir(message["cwd"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(message["variables"])
    try:
        os.execvp(message["words"][0], message["words"])
    except OSError as error:
        sys.stderr.write("{}{}{}\n".format(message["words"][0], NOT_RUN, error.strerror))
        sys.stderr.flush()
        os._exit(NOT_FOUND)


def watch(program: int, lifeline: socket.socket) -> int:
    """Wait until the program ends, or the supervisor has gone; an exit status as a shell has it."""
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    poll = select.poll()
    poll.register(awake, select.POLLIN)
    poll.register(lifeline, select.POLLRDHUP | select.POLLHUP)
    while True:
        while True:  # the first process is everybody's heir: whoever has lost a parent is buried here
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid == 0:
                break
            if pid == program:
                return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        for ready, _ in poll.poll():
            if ready == lifeline.fileno():
                return 128 + signal.SIGKILL
            os.read(awake, 1 << 12)


def main() -> int:
    shut()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the program is asked by itself
    lifeline = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    lifeline.connect(sys.argv[1])
    message, descriptors = receive(lifeline)
    program = os.fork()
    if program == 0:
        try:
            become(message, descriptors)
        finally:
            os._exit(1)
    for descriptor in descriptors[: len(message["descriptors"])]:
        os.close(descriptor)
    return watch(program, lifeline)


if __name__ == "__main__":
    sys.exit(main())
