"""A capture: photos, cameras, masks, sparse points, and the split. Never changes once made.

On disk it is a folder::

    captures/<name>/
    ├── capture.json   everything but the pixels; see Capture.load
    ├── images/        one 8-bit RGB PNG per view, undistorted, resized, alpha composited
    ├── masks/         one 8-bit grey PNG (0 or 255) per view that has a mask
    ├── points.ply     sparse points, where there are any
    └── truth/         depth and mesh, only where the source knows them exactly

``hash`` covers all that a method or a score can depend on: the pixels, masks, cameras, names, split,
background and points. ``source_hash`` covers the source's files and the settings, so that adding the same
source twice is noticed before any work is done.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TurntableError
from ..files import sha256_of
from ..worker.contract import Camera
from ..worker.ply import read_points
from ..worker.png import read_png

FORMAT = 1


@dataclass(frozen=True)
class CaptureView:
    """One view of a capture.

    Args:
        name: as the source names it; unique in the capture.
        camera: pinhole, for the stored photo.
        image_path: PNG, ``uint8[H, W, 3]``.
        mask_path: PNG, ``uint8[H, W]``, 255 where a pixel counts; None where every pixel does.
        held_out: whether methods are kept from seeing it.
        origin: where the photo came from: ``path``, ``sha256``, ``width``, ``height`` in pixels.
    """

    name: str
    camera: Camera
    image_path: Path
    mask_path: Path | None
    held_out: bool
    origin: dict[str, Any]

    def image(self) -> np.ndarray:
        """The photo, ``uint8[H, W, 3]``."""
        return read_png(self.image_path)

    def mask(self) -> np.ndarray | None:
        """``bool[H, W]``, True where a pixel counts, or None where every pixel does."""
        return None if self.mask_path is None else read_png(self.mask_path) > 127


@dataclass(frozen=True)
class Capture:
    """A capture as it lies on disk."""

    folder: Path
    document: dict[str, Any]
    """What ``capture.json`` holds."""

    @classmethod
    def load(cls, folder: Path) -> Capture:
        """Read ``capture.json`` in ``folder``; images are read when asked for.

        Raises:
            TurntableError: there is none, or it is damaged or of a newer format.
        """
        path = folder / "capture.json"
        try:
            document = json.loads(path.read_text())
        except FileNotFoundError:
            raise TurntableError(f"A capture needs a capture.json; there is none in {folder}.") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise TurntableError(f"{path} is damaged ({error}); add the capture again.") from None
        if not isinstance(document, dict):
            raise TurntableError(f"{path} is damaged (no JSON object); add the capture again.")
        if document.get("format") != FORMAT:
            raise TurntableError(
                f"{path} has format {document.get('format')!r}; this Turntable reads format {FORMAT}. "
                "Update Turntable or add the capture again."
            )
        return cls(folder, document)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def hash(self) -> str:
        return self.document["hash"]

    @property
    def source_hash(self) -> str:
        return self.document["source_hash"]

    @cached_property
    def views(self) -> tuple[CaptureView, ...]:
        """All views, sorted by name."""
        return tuple(
            CaptureView(
                name=view["name"],
                camera=Camera.from_json(view["camera"]),
                image_path=self.folder / view["image"],
                mask_path=self.folder / view["mask"] if view.get("mask") else None,
                held_out=view["held_out"],
                origin=view["origin"],
            )
            for view in self.document["views"]
        )

    @property
    def training(self) -> tuple[CaptureView, ...]:
        """The views that methods may see."""
        return tuple(view for view in self.views if not view.held_out)

    @property
    def held_out(self) -> tuple[CaptureView, ...]:
        """The views that every run is scored on."""
        return tuple(view for view in self.views if view.held_out)

    @property
    def background(self) -> tuple[float, float, float]:
        """sRGB in [0, 1]: what alpha was composited onto."""
        red, green, blue = self.document["background"]
        return red, green, blue

    @property
    def has_alpha(self) -> bool:
        """Whether any photo had transparency."""
        return self.document["has_alpha"]

    @property
    def points_path(self) -> Path | None:
        """The sparse points' PLY file, or None where the capture has no points."""
        return self.folder / "points.ply" if self.document.get("points") else None

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Sparse points ``float64[P, 3]`` and colours ``uint8[P, 3]``; P is 0 where there are none."""
        path = self.points_path
        return (np.zeros((0, 3)), np.zeros((0, 3), np.uint8)) if path is None else read_points(path)

    @property
    def left_out(self) -> tuple[dict[str, str], ...]:
        """Entries of the source that are used nowhere: ``name`` and ``why``."""
        return tuple(self.document["left_out"])

    def check(self) -> None:
        """Make sure that the capture is what it was made as.

        Raises:
            TurntableError: a file is missing or has been changed since.
        """
        try:
            now = content_hash(self.document, self.folder)
        except OSError as error:
            raise TurntableError(f"Capture {self.name} has lost a file ({error}). Add it again.") from None
        if now != self.hash:
            raise TurntableError(
                f"Capture {self.name} in {self.folder} has been changed since it was made, and captures never change. "
                "Remove that folder and add the capture again."
            )


def content_hash(document: dict[str, Any], folder: Path) -> str:
    """The hash of all that methods and scores can depend on; not of where the photos came from."""
    views = [
        {
            "name": view["name"],
            "camera": view["camera"],
            "held_out": view["held_out"],
            "image": sha256_of(folder / view["image"]),
            "mask": sha256_of(folder / view["mask"]) if view["mask"] else None,
        }
        for view in document["views"]
    ]
    points = sha256_of(folder / "points.ply") if document["points"] else None
    background = document["background"]
    return hash_of(
        {"views": views, "points": points, "background": background, "has_alpha": document["has_alpha"]}
    )


def hash_of(document: Any) -> str:
    """The sha256 of a JSON document, in hexadecimal."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
