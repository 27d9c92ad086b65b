"""Turntable: find out what research models really do.

The Python API is what is named here and nothing else; the command line does all its work through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench import Bench
    from .captures.build import CaptureOptions
    from .captures.capture import Capture
    from .captures.split import HoldOut
    from .errors import TurntableError
    from .jobs import Comparison, RunRequest, compare
    from .methods.spec import Method
    from .run import Budget

_WHERE = {
    "Bench": "bench",
    "Budget": "run",
    "Capture": "captures.capture",
    "CaptureOptions": "captures.build",
    "Comparison": "jobs",
    "HoldOut": "captures.split",
    "Method": "methods.spec",
    "RunRequest": "jobs",
    "TurntableError": "errors",
    "compare": "jobs",
}

__all__ = [
    "Bench",
    "Budget",
    "Capture",
    "CaptureOptions",
    "Comparison",
    "HoldOut",
    "Method",
    "RunRequest",
    "TurntableError",
    "compare",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `turntable --help` doesn't pay for NumPy.
    if name not in _WHERE:
        raise AttributeError(f"module 'turntable' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
