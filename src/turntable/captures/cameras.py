"""From a source's cameras to the house's pinhole cameras.

Notation: a camera-to-world matrix ``C`` holds the camera's axes in its columns and its centre in the last;
the house wants world to camera, ``R = axesᵀ``, ``t = −R centre``, axes x right, y down, z forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import TurntableError, unknown_name
from ..worker.contract import Camera
from .source import SourceCamera

ROTATION_TOLERANCE = 0.02
"""How far a matrix may be from a rotation times one scale: exporters round to a few digits, which is mended;
more is an error.
"""


def nearest_rotation(matrix: np.ndarray, what: str) -> np.ndarray:
    """The rotation nearest to ``matrix`` (``float64[3, 3]``, maybe with one uniform scale).

    Raises:
        TurntableError: it holds NaN or infinity, mirrors, or is no rotation; ``what`` names it.
    """
    if not np.isfinite(matrix).all():
        raise TurntableError(
            f"{what} must hold finite numbers, but has NaN or infinity. Mend or remove that entry."
        )
    u, scales, vt = np.linalg.svd(matrix)
    if scales[2] <= 0 or scales[0] / scales[2] > 1 + ROTATION_TOLERANCE:
        stretch = ", ".join(f"{scale:.4g}" for scale in scales)
        raise TurntableError(
            f"{what} must be a rotation (with one scale at most), but stretches by {stretch}. "
            "Mend or remove that entry."
        )
    if np.linalg.det(matrix) < 0:
        raise TurntableError(f"{what} must be a rotation, but mirrors (determinant < 0). Check its axes.")
    return u @ vt


def world_to_camera(axes: np.ndarray, centre: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """``R`` and ``t`` from the camera's axes (columns right, down, forward) and centre in the world.

    Raises:
        TurntableError: as :func:`nearest_rotation`, or the centre isn't finite.
    """
    if not np.isfinite(centre).all():
        raise TurntableError(
            f"{what} must hold finite numbers, but has NaN or infinity. Mend or remove that entry."
        )
    rotation = nearest_rotation(axes, what).T
    return rotation, -rotation @ centre


def from_opengl(matrix: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """``R`` and ``t`` from a camera-to-world ``float64[3+, 4]`` with OpenGL's axes: right, up, backward."""
    axes = matrix[:3, :3] * np.array([1.0, -1.0, -1.0])
    return world_to_camera(axes, matrix[:3, 3], what)


def check_intrinsics(camera: SourceCamera, what: str) -> None:
    """Refuse cameras that can't have taken a photo.

    Raises:
        TurntableError: numbers that are not finite, focal lengths or sizes that are not positive.
    """
    import pycolmap

    if not np.isfinite(camera.params).all():
        raise TurntableError(f"{what}: intrinsics must be finite numbers, not {list(camera.params)}.")
    if camera.width < 1 or camera.height < 1:
        raise TurntableError(f"{what}: the size must be positive, not {camera.width}×{camera.height}.")
    known = sorted(set(pycolmap.CameraModelId.__members__) - {"INVALID", "EQUIRECTANGULAR"})
    if camera.model not in known:  # an equirectangular picture has no pinhole camera to be undistorted to
        raise unknown_name("camera model", camera.model, known)
    model = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
    )
    if not model.verify_params():
        raise TurntableError(f"{what}: a {camera.model} camera has not {len(camera.params)} parameters.")
    focal = [camera.params[index] for index in model.focal_length_idxs()]
    if min(focal) <= 0:
        raise TurntableError(f"{what}: focal lengths must be positive, not {focal}.")


def pinhole(camera: SourceCamera, R: np.ndarray, t: np.ndarray) -> Camera | None:
    """The same camera as a house camera if it has no distortion, else None."""
    params = camera.params
    if camera.model == "PINHOLE":
        fx, fy, cx, cy = params
    elif camera.model == "SIMPLE_PINHOLE":
        fx, fy, cx, cy = params[0], *params
    elif camera.model in ("OPENCV", "FULL_OPENCV") and not any(params[4:]):
        fx, fy, cx, cy = params[:4]
    elif camera.model in ("SIMPLE_RADIAL", "RADIAL") and not any(params[3:]):
        fx, fy, cx, cy = params[0], *params[:3]
    else:
        return None
    return Camera(camera.width, camera.height, fx, fy, cx, cy, R, t)


def resized(camera: Camera, width: int, height: int) -> Camera:
    """The camera of the photo resized to ``width``×``height``: each axis scaled by its own exact ratio."""
    x, y = width / camera.width, height / camera.height
    return Camera(
        width, height, camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y, camera.R, camera.t
    )


def matrix_of(rows: object, what: str) -> np.ndarray:
    """A ``float64[3+, 4]`` out of nested lists.

    Raises:
        TurntableError: it is no such matrix of numbers.
    """
    try:
        matrix = np.array(rows, np.float64)
    except (ValueError, TypeError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape not in ((3, 4), (4, 4)):
        raise TurntableError(f"{what} must be a 4×4 (or 3×4) matrix of numbers, not {str(rows)[:60]!r}.")
    return matrix


def common_names(paths: Sequence[str]) -> list[str]:
    """Names for entries given as paths: without the folders that all share: ``images/a.jpg`` is ``a.jpg``."""
    parts = [path.replace("\\", "/").removeprefix("./").split("/") for path in paths]
    shared = 0
    while len(parts) > 0 and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return ["/".join(p[shared:]) for p in parts]
