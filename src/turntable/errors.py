"""The one error that users are meant to see."""

from __future__ import annotations

import errno
from collections.abc import Iterable

MOST_NAMES = 40
"""So many known names are listed where one isn't known."""


class TurntableError(Exception):
    """A request or an input was wrong: one line with the rule, the value received and what to do next.

    The command line prints the message and ends with status 2; a traceback only with ``--debug``.
    """


class UnknownNameError(TurntableError):
    """Nobody knows the name that was asked for; see :func:`unknown_name`."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that nobody knows: it lists the known ones and the nearest.

    Args:
        kind: what was looked up, as in the house vocabulary ("method", "capture", "run").
        name: what was asked for.
        known: the valid names.
    """
    import difflib  # not above: `turntable status` needs none

    valid = sorted(known)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    more = f" and {len(valid) - MOST_NAMES} more" if len(valid) > MOST_NAMES else ""
    listed = ", ".join(valid[:MOST_NAMES]) or "(none)"
    return UnknownNameError(f"Unknown {kind} {name!r}; known: {listed}{more}.{hint}")


def disk_error(error: OSError, what: str) -> TurntableError:
    """What an error of the file system means for the user, in one line.

    Args:
        error: as it was raised.
        what: what could not be written or read, to end the sentence "Can't write …".
    """
    where = f" ({error.filename})" if error.filename else ""
    remedy = {
        errno.ENOSPC: "the disk is full; free some space, or choose another --bench",
        errno.EDQUOT: "the disk quota is used up; free some space, or choose another --bench",
        errno.EROFS: "it is on a read-only file system; choose another --bench",
        errno.EACCES: "permission denied; choose another --bench or mend the permissions",
        errno.EPERM: "permission denied; choose another --bench or mend the permissions",
    }.get(error.errno or 0, error.strerror or str(error))
    return TurntableError(f"Can't write {what}: {remedy}{where}.")
