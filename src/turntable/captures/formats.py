"""The known source formats, in the order in which they are looked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import TurntableError, unknown_name

FORMATS = ("transforms", "colmap", "llff", "middlebury", "photos")
"""Names for ``--format``; each is a module beside this one, imported when it is needed."""


def loader_for(source: Path, format: str | None) -> Any:
    """The loader module for ``source``: the one asked for, else the first that recognises what lies there.

    Raises:
        TurntableError: no such source, an unknown format, or nothing that is recognised.
    """
    if format is not None and format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if not source.exists():
        raise TurntableError(f"A source is a folder or a file that exists; there is none at {source}.")
    if source.is_dir() and not any(source.iterdir()):
        raise TurntableError(f"A source needs photos; the folder {source} is empty.")
    if format is not None:
        return import_module(f".{format}", __package__)
    for name in FORMATS:
        loader = import_module(f".{name}", __package__)
        if loader.recognise(source):
            return loader
    raise TurntableError(
        f"Nothing in {source} is recognised: no transforms.json, no COLMAP model (cameras.bin or .txt), no "
        "poses_bounds.npy, no *_par.txt, no photos, no video. Name what it is with --format."
    )
