"""What a method is given and what it gives back.

Conventions: world to camera is ``x_cam = R @ x_world + t`` with camera axes x right, y down, z forward
(OpenCV); pixel centres lie at half integers, so that the pixel in column ``i`` and row ``j`` is seen along
``((i + 0.5 - cx) / fx, (j + 0.5 - cy) / fy, 1)``. Images are ``float32[H, W, 3]`` in [0, 1], sRGB-encoded;
masks are ``float32[H, W]``, 1 where a pixel counts; depth is z in scene units.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from .ply import read_points
from .png import read_png


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera without distortion.

    Args:
        width, height: size of the image in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels (the centre of a ``width``×``height`` image is width/2, height/2).
        R: ``float64[3, 3]`` rotation, world to camera.
        t: ``float64[3]`` translation, world to camera, in scene units.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    R: np.ndarray
    t: np.ndarray

    @property
    def K(self) -> np.ndarray:
        """Intrinsics, ``float64[3, 3]``."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    @property
    def centre(self) -> np.ndarray:
        """Where the camera stands in the world, ``float64[3]``."""
        return -self.R.T @ self.t

    @property
    def forward(self) -> np.ndarray:
        """The viewing direction in the world, ``float64[3]``, length 1."""
        return self.R[2]

    def project(self, points: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        """Project world points, ``float64[N, 3]``, to pixels ``float64[N, 2]`` and depths ``float64[N]``.

        Points behind the camera come out with a depth ≤ 0 and meaningless pixels.
        """
        cam = points @ self.R.T + self.t
        depth = cam[:, 2]
        safe = np.where(depth == 0, np.finfo(np.float64).tiny, depth)
        pixels = np.stack([self.fx * cam[:, 0] / safe + self.cx, self.fy * cam[:, 1] / safe + self.cy], 1)
        return pixels, depth

    def to_json(self) -> Dict[str, Any]:
        """A JSON object from which :meth:`from_json` makes the same camera, bit for bit."""
        return {
            "width": self.width,
            "height": self.height,
            "fx": self.fx,
            "fy": self.fy,
            "cx": self.cx,
            "cy": self.cy,
            "R": self.R.tolist(),
            "t": self.t.tolist(),
        }

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> "Camera":
        """The camera that :meth:`to_json` described."""
        numbers = {key: float(data[key]) for key in ("fx", "fy", "cx", "cy")}
        return cls(
            width=int(data["width"]),
            height=int(data["height"]),
            R=np.array(data["R"], np.float64).reshape(3, 3),
            t=np.array(data["t"], np.float64).reshape(3),
            **numbers,
        )


class View:
    """A photo with its camera. The photo is read when it is asked for, and not kept."""

    def __init__(self, name: str, camera: Camera, image_path: Path, mask_path: Optional[Path] = None) -> None:
        self.name = name
        self.camera = camera
        self.image_path = image_path
        self.mask_path = mask_path

    @property
    def image_u8(self) -> np.ndarray:
        """The photo, ``uint8[H, W, 3]``, sRGB."""
        return read_png(self.image_path)

    @property
    def image(self) -> np.ndarray:
        """The photo, ``float32[H, W, 3]`` in [0, 1], sRGB."""
        return self.image_u8.astype(np.float32) / np.float32(255)

    @property
    def mask(self) -> Optional[np.ndarray]:
        """``float32[H, W]``, 1 where a pixel counts; None where every pixel does."""
        if self.mask_path is None:
            return None
        return (read_png(self.mask_path) > 127).astype(np.float32)


class TrainingViews(Sequence):
    """All that a method is told about a capture: its training views, sparse points and background.

    Attributes:
        points: ``float64[P, 3]`` sparse points in the world; P may be 0.
        point_colours: ``uint8[P, 3]``.
        background: ``float32[3]``, the colour that alpha was composited onto.
        has_alpha: whether any photo had transparency, that is, whether the background is a colour to expect.
    """

    def __init__(
        self,
        views: List[View],
        points_path: Optional[Path],
        background: Sequence[float],
        has_alpha: bool = False,
    ) -> None:
        self._views = views
        self.background = np.array(background, np.float32)
        self.has_alpha = has_alpha
        if points_path is None:
            self.points = np.zeros((0, 3))
            self.point_colours = np.zeros((0, 3), np.uint8)
        else:
            self.points, self.point_colours = read_points(points_path)

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, index: Any) -> Any:
        return self._views[index]

    def __iter__(self) -> Iterator[View]:
        return iter(self._views)


class Rendering(NamedTuple):
    """What ``render(camera)`` gives back; a method may return any object with these attributes, or a mapping.

    Args:
        image: ``float32[H, W, 3]``, sRGB; values outside of [0, 1] are clipped before anything is scored.
        depth: ``float32[H, W]``, z in scene units, or None.
        opacity: ``float32[H, W]`` in [0, 1], or None.
    """

    image: np.ndarray
    depth: Optional[np.ndarray] = None
    opacity: Optional[np.ndarray] = None
