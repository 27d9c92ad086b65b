"""``python …/launch.py PARENT PROGRAM ARGUMENT…``: becomes that program, which dies with the supervisor PARENT.

For programs that know nothing of Turntable; our own workers ask for the same themselves.
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
    os.execvp(sys.argv[2], sys.argv[2:])
