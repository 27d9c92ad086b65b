"""Camera paths for films: an orbit that stays where photos were taken, a way along the views, a path from a file.

Notation: cameras stand at ``centres[N, 3]``, look along ``forwards[N, 3]``, and the *focus* is what they look at. An orbit
is described by angles around the focus: azimuth around ``up``, elevation towards it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from ..errors import TurntableError
from ..worker.contract import Camera
from .cameras import from_opengl, matrix_of, nearest_rotation, resized
from .capture import Capture

FULL_CIRCLE_GAP = np.radians(100)
"""Cameras that leave no larger gap than this around the focus were taken all around it: the orbit closes the circle. Eight
photos around an object leave 45°, a capture of the front half leaves 180°."""

INSIDE = 0.9
"""So much of the arc that photos cover is travelled: at its ends every method shows what no photo saw."""

PARALLEL = 0.02
"""Where the axes of all cameras are nearly parallel (smallest eigenvalue of the mean of 1 − f fᵀ), they meet nowhere near:
the focus is then as far as the sparse points are. 0.02 are axes within about 11° of each other."""

AIMED = 0.7
"""Cameras look at the focus where the cosine between their axes and it is larger than this in the middle: 45°. Photos of an
object have it within 25°; in a scan of a room from its middle the axes meet behind the cameras."""

LEVEL = 0.1
"""Axes of photos that were all held level lie in a plane: across it they spread by at most this share of what they do in
it."""

TURNED = 0.05
"""What axes must spread in their plane to say which one it is, as a mean square: about what 25° of turning make."""

LONGEST_FRAMES = 20_000
LARGEST_SIDE = 8192

_DENSE = 2048
"""Places along a path at which its length is measured, so that the speed can be made even."""


@dataclass(frozen=True)
class Film:
    """How a film is shot.

    Args:
        frames: how many.
        long_side: of its pictures, in pixels; None for the capture's own size. Both sides are made even.
    """

    frames: int = 120
    long_side: int | None = None


def check_film(film: Film) -> None:
    """Refuse what can't be meant.

    Raises:
        TurntableError: a number is out of bounds.
    """
    if not 2 <= film.frames <= LONGEST_FRAMES:
        raise TurntableError(f"--frames is from 2 to {LONGEST_FRAMES}, not {film.frames}.")
    if film.long_side is not None and not 16 <= film.long_side <= LARGEST_SIDE:
        raise TurntableError(f"--long-side is from 16 to {LARGEST_SIDE} pixels, not {film.long_side}.")


def orbit(capture: Capture, film: Film) -> list[Camera]:
    """A smooth closed path around what the capture's cameras look at, at one speed.

    Where photos were taken all around, a whole circle; else an ellipse within the arc that they cover. Height and distance
    follow those of the photos nearby. Cameras that look outwards, as in a scan of a room from its middle, have no focus:
    they are followed there and back.
    """
    focus = focus_of(capture)
    if focus is None:
        return _there_and_back(capture, film)
    up, sideways = up_of(capture, focus)
    around = _Around(focus, up, np.array([view.camera.centre for view in capture.views]))
    places = _even_speed(around.path(), film.frames)
    lens = _lens(capture, film, sideways)
    return [replace(lens, **_looking(place, focus, up)) for place in places]


def along_views(capture: Capture, film: Film) -> list[Camera]:
    """A smooth path through all views of the capture, in the order of their names, at one speed."""
    return _along(capture, film, np.arange(film.frames) / (film.frames - 1))


def read_path(path: Path, capture: Capture, film: Film) -> list[Camera]:
    """The cameras of a file, in the capture's world.

    Either ``{"cameras": [{"width", "height", "fx", "fy", "cx", "cy", "R", "t"}, …]}``, world to camera with OpenCV's axes,
    as in a capture's ``capture.json``; or ``{"frames": [{"transform_matrix": …}, …]}`` as in a ``transforms.json``: camera
    to world with OpenGL's axes, seen through the capture's own lens. ``film.frames`` is not used.

    Raises:
        TurntableError: the file can't be read, or holds no such path.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TurntableError(
            f"--path takes orbit, views or a JSON file of cameras; {path}: {error}."
        ) from None
    document = document if isinstance(document, dict) else {}
    lens = _lens(capture, film)
    found: list[Camera] = []
    if isinstance(document.get("cameras"), list):
        found = [
            _own_camera(entry, f"camera {number} of {path}", film)
            for number, entry in enumerate(document["cameras"])
        ]
    elif isinstance(document.get("frames"), list):
        for number, frame in enumerate(document["frames"]):
            what = f"frame {number} of {path}"
            matrix = matrix_of(frame.get("transform_matrix") if isinstance(frame, dict) else None, what)
            R, t = from_opengl(matrix, what)
            found.append(replace(lens, R=R, t=t))
    if not 2 <= len(found) <= LONGEST_FRAMES:
        raise TurntableError(
            f"{path} must have from 2 to {LONGEST_FRAMES} cameras or frames, not {len(found)}: a film goes along them."
        )
    if len({(camera.width, camera.height) for camera in found}) > 1:
        raise TurntableError(f"All cameras of {path} need one size: they are the pictures of one film.")
    return found


def _own_camera(entry: Any, what: str, film: Film) -> Camera:
    try:
        camera = Camera.from_json(entry)
        R = nearest_rotation(camera.R, what)
        numbers = [camera.fx, camera.fy, camera.cx, camera.cy, *camera.t]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TurntableError(f"{what} needs width, height, fx, fy, cx, cy, R and t; {error!r}.") from None
    if not np.isfinite(numbers).all() or min(camera.fx, camera.fy, camera.width, camera.height) <= 0:
        raise TurntableError(f"{what} must have finite numbers, and a size and focal lengths above 0.")
    if max(camera.width, camera.height) > LARGEST_SIDE:
        raise TurntableError(
            f"{what} is {camera.width}×{camera.height}; a film has at most {LARGEST_SIDE} pixels a side."
        )
    return _sized(replace(camera, R=R), film)


def focus_of(capture: Capture) -> np.ndarray | None:
    """What the capture's cameras look at, ``float64[3]``: the point nearest to all optical axes; None where most of them
    look away from it."""
    centres = np.array([view.camera.centre for view in capture.views])
    forwards = np.array([view.camera.forward for view in capture.views])
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    matrix = across.mean(0)
    if np.linalg.eigvalsh(matrix)[0] > PARALLEL:
        focus = np.linalg.solve(matrix, (across @ centres[:, :, None]).mean(0)[:, 0])
    else:
        middle, ahead = centres.mean(0), _unit(forwards.mean(0))
        points, _ = capture.points()
        depths = (points - middle) @ ahead
        depths = depths[depths > 0]
        spread = float(np.linalg.norm(centres - middle, axis=1).max())
        focus = middle + ahead * (float(np.median(depths)) if len(depths) else 4 * spread or 1.0)
    offsets = focus - centres
    distances = np.linalg.norm(offsets, axis=1)
    if distances.min() <= 1e-9 * (1 + np.abs(centres).max()):  # photos taken from one place, all around it
        return None
    return focus if np.median((offsets * forwards).sum(1) / distances) > AIMED else None


def up_of(capture: Capture, focus: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """Which way is up, ``float64[3]`` of length 1, and whether the photos lie on their sides.

    Up is perpendicular to the rows of all photos that were held level, and to the columns of all that were held sideways;
    where neither can be told, it is the mean of what is up in the photos.

    Args:
        capture: its cameras are asked.
        focus: as :func:`focus_of` has it. Most photos are taken from above it: that tells up from down where nothing else
            does.
    """
    axes = np.array([view.camera.R for view in capture.views])
    centres = np.array([view.camera.centre for view in capture.views])
    above = np.zeros(3) if focus is None else (centres - focus).mean(0)
    mean = -axes[:, 1].mean(0)
    found = []
    for side in (0, 1):
        spreads, directions = np.linalg.eigh(axes[:, side].T @ axes[:, side] / len(axes))
        if spreads[1] > TURNED and spreads[0] < LEVEL * spreads[1]:
            found.append((spreads[0], side == 1, directions[:, 0]))
    if not found:
        return (_unit(mean) if np.linalg.norm(mean) > 0.1 else np.array([0.0, -1.0, 0.0])), False
    # Where both fit as well, to round-off, photos were held level.
    _, sideways, up = min(found, key=lambda one: (round(one[0], 9), one[1]))
    sign = up @ mean if not sideways and abs(up @ mean) > 0.1 else above @ up
    return (-up if sign < 0 else up), sideways


class _Around:
    """The orbit around ``focus``, in angles around ``up``."""

    def __init__(self, focus: np.ndarray, up: np.ndarray, centres: np.ndarray) -> None:
        self._focus, self._up = focus, up
        offsets = centres - focus
        self._radii = np.linalg.norm(offsets, axis=1)
        heights = offsets @ up
        flat = offsets - heights[:, None] * up
        seed = flat.mean(0) if np.linalg.norm(flat.mean(0)) > 1e-6 * self._radii.mean() else flat[0]
        if np.linalg.norm(seed) < 1e-9 * self._radii.mean():  # all cameras stand above or below the focus
            seed = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
        self._east = _unit(seed)
        self._north = np.cross(up, self._east)
        self._azimuths = np.arctan2(flat @ self._north, flat @ self._east)
        self._elevations = np.arcsin(np.clip(heights / self._radii, -1, 1))

    def path(self) -> np.ndarray:
        """``float64[P, 3]``: places along the closed path, not at one speed."""
        time = np.linspace(0, 2 * np.pi, _DENSE)
        start, end, closed = self._covered()
        if closed:
            azimuths = start + time
            elevations = self._nearby(azimuths, self._elevations, np.radians(25))
        else:
            azimuths = (start + end) / 2 + INSIDE * (end - start) / 2 * np.sin(time)
            low, high = np.percentile(self._elevations, [10, 90])
            elevations = (low + high) / 2 + INSIDE * (high - low) / 2 * np.cos(time)
        radii = self._nearby(azimuths, self._radii, np.radians(25))
        flat = np.cos(azimuths)[:, None] * self._east + np.sin(azimuths)[:, None] * self._north
        directions = np.cos(elevations)[:, None] * flat + np.sin(elevations)[:, None] * self._up
        return self._focus + radii[:, None] * directions

    def _covered(self) -> tuple[float, float, bool]:
        """Where the arc that photos cover begins and ends, and whether it goes all around."""
        around = np.sort(self._azimuths)
        gaps = np.diff(np.append(around, around[0] + 2 * np.pi))
        largest = int(np.argmax(gaps))
        start = float(around[(largest + 1) % len(around)])
        end = start + 2 * np.pi - float(gaps[largest])
        return start, end, len(around) > 2 and gaps[largest] <= FULL_CIRCLE_GAP

    def _nearby(self, azimuths: np.ndarray, values: np.ndarray, width: float) -> np.ndarray:
        """The mean of ``values`` over the cameras near each azimuth, by a bell of ``width``, radians."""
        apart = np.angle(np.exp(1j * (azimuths[:, None] - self._azimuths)))
        nearest = np.abs(apart).min(1, keepdims=True)  # far from all cameras the nearest ones count alone
        weights = np.exp(-0.5 * (np.square(apart) - np.square(nearest)) / width**2)
        return (weights * values).sum(1) / weights.sum(1)


def _looking(place: np.ndarray, focus: np.ndarray, up: np.ndarray) -> dict[str, np.ndarray]:
    """``R`` and ``t`` of a camera that stands at ``place`` and looks at ``focus``."""
    forward = _unit(focus - place)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:  # it looks along up
        right = np.cross(forward, [1.0, 0.0, 0.0] if abs(forward[0]) < 0.9 else [0.0, 1.0, 0.0])
    right = _unit(right)
    R = np.stack([right, np.cross(forward, right), forward])
    return {"R": R, "t": -R @ place}


def _along(capture: Capture, film: Film, shares: np.ndarray) -> list[Camera]:
    """The cameras after these ``shares`` (0 to 1) of the way through all views, in the order of their names.

    A turn is a part of the way, too: one of 1 rad is as long as half of the capture's extent. Between two photos the path
    never leaves the box that they span (monotone cubics), nor do the quaternions theirs.
    """
    cameras = [view.camera for view in capture.views]
    centres = np.array([camera.centre for camera in cameras])
    rotations = Rotation.from_matrix(np.array([camera.R.T for camera in cameras]))
    reach = float(np.linalg.norm(np.ptp(centres, axis=0))) / 2 or 1.0
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    steps += reach * (rotations[1:] * rotations[:-1].inv()).magnitude()
    times = np.append(
        0.0, np.cumsum(steps + 1e-6 * reach)
    )  # of two photos alike: a spline needs times that grow
    quaternions = rotations.as_quat()
    turned_over = np.cumprod(np.append(1, np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1, 1)))
    knots = np.concatenate([centres, quaternions * turned_over[:, None]], axis=1)
    spline = PchipInterpolator(times, knots)
    dense = np.linspace(0, times[-1], _DENSE)
    bearings = Rotation.from_quat(spline(dense)[:, 3:]).as_matrix().reshape(_DENSE, 9)
    # Matrices that are a small turn of θ apart differ by √2 θ.
    way = _lengths(np.concatenate([spline(dense)[:, :3], reach / np.sqrt(2) * bearings], axis=1))
    at = spline(np.interp(shares * way[-1], way, dense))
    lens = _lens(capture, film)
    return [
        replace(lens, R=R, t=-R @ place)
        for R, place in zip(
            Rotation.from_quat(at[:, 3:]).as_matrix().transpose(0, 2, 1), at[:, :3], strict=True
        )
    ]


def _there_and_back(capture: Capture, film: Film) -> list[Camera]:
    return _along(capture, film, (1 - np.cos(2 * np.pi * np.arange(film.frames) / film.frames)) / 2)


def _even_speed(path: np.ndarray, frames: int) -> np.ndarray:
    """``frames`` places along the closed ``path[P, 3]``, as far from each other along it; the last isn't the first."""
    way = _lengths(path)
    at = np.arange(frames) / frames * way[-1]
    return np.stack([np.interp(at, way, path[:, axis]) for axis in range(3)], axis=-1)


def _lengths(path: np.ndarray) -> np.ndarray:
    """How far along ``path[P, D]`` each of its places lies: ``float64[P]``."""
    return np.append(0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))


def _lens(capture: Capture, film: Film, sideways: bool = False) -> Camera:
    """The capture's lens with its axis in the middle of the picture, at the film's size; turned upright from its side."""
    first = capture.views[0].camera
    focal = np.median(
        [[view.camera.fx / view.camera.width, view.camera.fy / view.camera.height] for view in capture.views],
        0,
    )
    camera = replace(
        first,
        fx=float(focal[0]) * first.width,
        fy=float(focal[1]) * first.height,
        cx=first.width / 2,
        cy=first.height / 2,
    )
    if sideways:
        camera = replace(
            camera,
            width=camera.height,
            height=camera.width,
            fx=camera.fy,
            fy=camera.fx,
            cx=camera.cy,
            cy=camera.cx,
        )
    return _sized(camera, film)


def _sized(camera: Camera, film: Film) -> Camera:
    """The same camera at the film's size; video wants even sides."""
    scale = 1.0 if film.long_side is None else film.long_side / max(camera.width, camera.height)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (camera.width, camera.height))
    return resized(camera, width, height)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
