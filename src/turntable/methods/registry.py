"""Which methods there are: those that came with Turntable and those in a bench's ``methods/``."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import TurntableError, unknown_name
from .spec import Method

BUILT_IN = Path(__file__).parent


def find_methods(bench_methods: Path | None = None) -> dict[str, Method]:
    """All methods by name; a bench's own method stands before a built-in one of the same name.

    Args:
        bench_methods: the bench's ``methods/`` folder, or None to list the built-in ones only.

    A method of the bench whose ``method.toml`` breaks a rule is not among them: see :func:`broken_methods`.
    """
    found = {
        path.parent.name: Method.load(path.parent, "built in") for path in BUILT_IN.glob("*/method.toml")
    }
    if bench_methods is not None and bench_methods.is_dir():
        for path in bench_methods.glob("*/method.toml"):
            with contextlib.suppress(TurntableError):
                found[path.parent.name] = Method.load(path.parent, "bench")
    return dict(sorted(found.items()))


def broken_methods(bench_methods: Path) -> list[str]:
    """A line for every ``method.toml`` of a bench that breaks a rule."""
    faults = []
    for path in sorted(bench_methods.glob("*/method.toml")):
        try:
            Method.load(path.parent)
        except TurntableError as error:
            faults.append(str(error))
    return faults


def get_method(name: str, bench_methods: Path | None = None) -> Method:
    """The method called ``name``, or the one in the folder ``name`` if it is a path.

    Raises:
        TurntableError: nobody knows it; the message lists the known ones.
    """
    if "/" in name:
        folder = Path(name).expanduser().resolve()
        if not folder.is_dir():
            raise TurntableError(
                f"A method is a known name or a folder with a method.toml; there is no folder {folder}."
            )
        return Method.load(folder, "folder")
    if bench_methods is not None and (bench_methods / name / "method.toml").is_file():
        return Method.load(bench_methods / name, "bench")
    methods = find_methods(bench_methods)
    if name not in methods:
        raise unknown_name("method", name, methods)
    return methods[name]
