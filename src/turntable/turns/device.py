"""Devices: what runs share, one run at a time."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import TurntableError


def check_device(name: str) -> str:
    """The device called ``name``: ``cpu``, ``cuda`` (meaning ``cuda:0``) or ``cuda:<number>``.

    Raises:
        TurntableError: another name.
    """
    if name == "cuda":
        return "cuda:0"
    if name == "cpu" or re.fullmatch(r"cuda:\d{1,3}", name):
        return name
    raise TurntableError(f"A device is cpu, cuda or cuda:<number>, not {name!r}.")


@contextmanager
def hold(bench: Path, device: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a device of this bench: two runs at once would falsify each other's device seconds.

    The lock is the kernel's, so it goes when its holder dies, however that happens.

    Args:
        bench: the bench's folder.
        device: its name.
        waiting: called once if somebody else holds it.
    """
    with (bench / f".device-{device.replace(':', '-')}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
