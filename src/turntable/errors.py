"""The one error that users are meant to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TurntableError(Exception):
    """A request or an input was wrong: one line with the rule, the value received and what to do next.

    The command line prints the message and ends with status 2; a traceback only with ``--debug``.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> TurntableError:
    """The error for a name that nobody knows: it lists the known ones and the nearest.

    Args:
        kind: what was looked up, as in the house vocabulary ("method", "capture", "run").
        name: what was asked for.
        known: the valid names.
    """
    valid = sorted(known)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return TurntableError(f"Unknown {kind} {name!r}; known: {', '.join(valid) or '(none)'}.{hint}")
