"""``python …/launch.py PARENT GROUPS PROGRAM ARGUMENT…``: becomes that program, which dies with the supervisor PARENT.

GROUPS are the files of control groups that take a process in, joined by colons, or ``-``. They are joined before the
program is started: so nothing that the program starts, however soon, is born outside.
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


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    for file in sys.argv[2].split(os.pathsep) if sys.argv[2] != "-" else ():
        try:
            with open(file, "w") as group:  # noqa: PTH123  # pathlib would take as long as Python itself
                group.write("0")
        except OSError:  # it may not be joined: there are other ways to end a program, see turns/family.py
            pass
    os.execvp(sys.argv[3], sys.argv[3:])
