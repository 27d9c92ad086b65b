"""``python …/launch.py PARENT GROUPS LOCKS PROGRAM ARGUMENT…``: becomes that program, which dies with the supervisor PARENT.

GROUPS are the files of control groups that take a process in, joined by colons, or ``-``. They are joined before the
program is started: so nothing that the program starts, however soon, is born outside.

LOCKS are ``-``, or descriptors joined by colons, for a program that builds walls: both ends of a socket, of which the
program keeps the first open as long as anything lives inside; then those of locks, which are held here, where nothing
inside can let go of them. The program is then a child, and dies with this process.
"""

from __future__ import annotations

import os
import signal
import sys


def die_with_parent(parent: int) -> None:
    """Ask the Linux kernel to kill this process when its supervisor dies, however that happens; it outlasts an exec.

    Elsewhere a worker notices at its next message or step that the socket has closed.

    Args:
        parent: the supervisor's process id. If ours is another by now, it is dead already.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)


def hold(ends: list[int], locks: list[int], words: list[str]) -> int:
    """Run a program, and hold locks until it and all that its walls held have died.

    Args:
        ends: of a socket: the program's, and ours, which closes when nothing lives inside any more.
        locks: descriptors.
        words: the program and its arguments.

    Returns:
        Its exit status, as a shell has it.
    """
    ours = ends[1]
    parent = os.getpid()
    program = os.fork()
    if program == 0:
        for descriptor in (ours, *locks):
            os.close(descriptor)
        die_with_parent(parent)
        become(words)
    kept = sorted({ours, *locks})
    for after, before in zip([2, *kept], [*kept, os.sysconf("SC_OPEN_MAX")]):  # noqa: B905  # none but these, and its output
        os.closerange(after + 1, before)
    _, status = os.waitpid(program, 0)
    os.read(ours, 1)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def become(words: list[str]) -> None:
    """Become a program; what there is to say where it can't be run goes to the log, as a shell would say it."""
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.stderr.write("{}: {}\n".format(words[0], error.strerror))
        sys.stderr.flush()
        os._exit(127)


def descriptors(text: str) -> list[int]:
    """The numbers of LOCKS."""
    return [int(number) for number in text.split(":")] if text != "-" else []


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    for file in sys.argv[2].split(os.pathsep) if sys.argv[2] != "-" else ():
        try:
            with open(file, "w") as group:  # noqa: PTH123  # pathlib would take as long as Python itself
                group.write("0")
        except OSError:  # it may not be joined: there are other ways to end a program, see turns/family.py
            pass
    held = descriptors(sys.argv[3])
    if held:
        os._exit(hold(held[:2], held[2:], sys.argv[4:]))
    become(sys.argv[4:])
