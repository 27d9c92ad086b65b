"""The entry point of the command ``turntable``, and ``python -m turntable``."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line."""
    gc.disable()  # of what is imported nothing is garbage, and looking for it takes a tenth of `turntable --help`
    from .cli import app

    gc.freeze()
    gc.enable()
    app()


if __name__ == "__main__":
    main()
