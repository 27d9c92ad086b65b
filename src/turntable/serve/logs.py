"""A run's log in small pieces: it may hold gigabytes, and is never read whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..files import open_beneath

MOST_BYTES = 64 * 1024
"""The most that is read, and sent, at once."""


def read_log(folder: Path, since: int | None = None) -> dict[str, Any]:
    """What a log says from an offset on, or its end.

    A log that grew by more than :data:`MOST_BYTES` since is gone on with at its end: nobody can read so fast. No character
    is cut in two, and where something was passed over the text begins with a whole line.

    Args:
        folder: the run's, which its method may write to: no link in it is followed.
        since: the offset in bytes that an earlier call ended with; None for the end of the log.

    Returns:
        ``text``; ``next``, the offset to go on from; ``skipped``, how many bytes were passed over; ``size``, of the log.
    """
    try:
        file = open_beneath(folder, "log.txt")
    except OSError:  # nothing was printed yet
        return {"text": "", "next": 0, "skipped": 0, "size": 0}
    with file:
        size = os.fstat(file.fileno()).st_size
        asked = since if since is not None and 0 <= since <= size else 0
        start = max(asked, size - MOST_BYTES)
        file.seek(start)
        data = file.read(MOST_BYTES)
    if start > asked:
        cut = data.find(b"\n") + 1  # 0 where it is all one line
        start, data = start + cut, data[cut:]
    data = data[: len(data) - _begun(data)]
    return {
        "text": data.decode("utf-8", "replace"),
        "next": start + len(data),
        "skipped": start - asked,
        "size": size,
    }


def _begun(data: bytes) -> int:
    """How many bytes at the end of ``data`` begin a character of UTF-8 whose rest is still to come."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0
