"""Which data set a capture is of: known only where somebody said so, never guessed from a folder's name.

``turntable get`` leaves a small file beside the data, the *marker*; whoever has the data already may write one::

    turntable-dataset.json: {"name": "nerf_synthetic/lego"}

A capture that is made of such a folder carries it in ``capture.json``, as ``source.dataset``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TurntableError
from ..files import read_json
from .capture import Capture

MARKER = "turntable-dataset.json"


@dataclass(frozen=True)
class DatasetName:
    """What a capture is of.

    Args:
        name: of the data set, ``nerf_synthetic``.
        scene: ``lego``; "" where the data set is one scene.
        sha256: of the archive that it came from; "" where somebody only said so.
    """

    name: str
    scene: str
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.scene}" if self.scene else self.name


def told_dataset(source: Path) -> dict[str, Any]:
    """``{"dataset": what the marker beside a source says}``, or {} where there is none.

    Raises:
        TurntableError: the marker is damaged, or names no data set.
    """
    path = (source.parent if source.is_file() else source) / MARKER
    if not path.is_file():
        return {}
    told = read_json(path)
    name = told.get("name") if isinstance(told, dict) else None
    if (
        not isinstance(name, str)
        or not name
        or name != name.strip("/")
        or any(not part for part in name.split("/"))
    ):
        raise TurntableError(
            f'{path} must hold a data set\'s name, such as {{"name": "nerf_synthetic/lego"}}, not {str(told)[:60]!r}.'
        )
    sha256 = told.get("sha256", "")
    if not isinstance(sha256, str):
        raise TurntableError(f"{path}: sha256 must be a text, not {sha256!r}.")
    return {"dataset": {"name": name, "sha256": sha256}}


def dataset_of(capture: Capture) -> DatasetName | None:
    """What a capture is said to be of, or None where nobody said."""
    return said_in(capture.document)


def said_in(document: dict[str, Any]) -> DatasetName | None:
    """What a ``capture.json`` says that its capture is of."""
    said = document.get("source", {}).get("dataset")
    if said is None:
        return None
    name, _, scene = said["name"].partition("/")
    return DatasetName(name, scene, said["sha256"])
