"""The entry point of the command ``turntable``, and ``python -m turntable``."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line."""
    gc.disable()  # of what is imported nothing is garbage, and looking for it takes a tenth of `turntable --help`
    if sys.argv[1:2] == ["status"] and _show_status(sys.argv[2:]):
        return
    from .cli._app import app

    gc.freeze()
    gc.enable()
    app()


def _show_status(arguments: list[str]) -> bool:
    """Answer ``turntable status`` without Typer, which takes longer to load than the answer takes; scripts ask it often.

    Returns:
        False where there is more to say than the answer (help, an error): then the command line proper says it.
    """
    flags = [argument for argument in arguments if argument in ("--json", "--all")]
    named = [argument for argument in arguments if argument not in flags]
    if named and (len(named) != 2 or named[0] != "--bench"):
        return False
    from .cli._queue_table import print_queue
    from .errors import TurntableError

    try:
        print_queue(named[1] if named else None, "--all" in flags, "--json" in flags)
    except (TurntableError, OSError):
        return False
    return True


if __name__ == "__main__":
    main()
