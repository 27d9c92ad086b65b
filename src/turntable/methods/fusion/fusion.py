"""The method ``fusion``: depth of each photo by stereo, depths fused to a mesh, colours taken from the photos.

Classical reconstruction on Python 3.8, with OpenCV and Open3D: nothing is learned, and the same photos give the same bits,
whatever the seed. One photo's depth is one step; one step more fuses them.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import cv2
import numpy as np

from .colour import Source, blend, fill, nearest_cameras
from .depthmaps import consistent, fitting_voxel
from .geometry import Frame, Pinhole
from .partners import choose_partners, depth_ranges
from .stereo import Photo, find_depth
from .surface import UNIT, UNIT_BYTES, Mesh, Scene, fuse, write_ply

CANDIDATES = 3
"""Times as many photos are looked at for a view as are blended at any one point of it: what one hides, another shows."""
KEPT_BYTES = 1 << 30
"""Photos, and the mesh's depth in them, are kept up to this size, and read or made again beyond it."""
EMPTY = 2
"""A pixel at most so many 255ths off the background, in a capture that had transparency, is background."""
PLACES = 16
"""A new view's points are looked up on a grid of so many places a side to find photos near it."""


class Rendering(NamedTuple):
    """``image`` float32[H, W, 3], sRGB; ``depth`` float32[H, W], z in scene units, 0 where there is no surface;
    ``opacity`` float32[H, W], 1 where there is one and else 0.
    """

    image: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


class Kept:
    """Things that can be made again: the last used are kept, up to a size."""

    def __init__(self, make: Callable[[int], np.ndarray], most_bytes: int) -> None:
        self._make, self._most, self._kept = make, most_bytes, OrderedDict()  # type: ignore[var-annotated]

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._kept:
            self._kept[index] = self._make(index)
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]


class Fusion:
    """State: a depth map for each photo that had its step, and the mesh of these once somebody has asked for it."""

    def __init__(self, views: Any, settings: Dict[str, Any], seed: int, device: str) -> None:
        self._views = list(views)
        self._settings = settings
        self._agreement = float(settings["agreement"])
        self._background = np.asarray(views.background, np.float32)
        self._has_alpha = bool(views.has_alpha)
        self._threads = int(settings["threads"]) or cores()
        centres = np.stack([view.camera.centre for view in views])
        spread = float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
        self._frame = Frame(centres.mean(0), spread if spread > 0 else 1.0)
        self._cameras = [self._frame.camera(view.camera) for view in views]
        points = (np.asarray(views.points, np.float64) - self._frame.origin) / self._frame.scale
        self._ranges = depth_ranges(self._cameras, points)
        self._partners = [
            choose_partners(self._cameras, index, middle, int(settings["partners"]))
            for index, (_, middle, _) in enumerate(self._ranges)
        ]
        self._photos = Kept(lambda index: self._views[index].image_u8, KEPT_BYTES)
        self._seen = Kept(self._seen_by_photo, KEPT_BYTES)
        self._depths: List[np.ndarray] = []
        self._votes: List[np.ndarray] = []
        self._scene: Optional[Scene] = None
        self.finished = False

    def step(self) -> Dict[str, float]:
        """Depth of the next photo; after the last, the mesh.

        Returns:
            ``loss``: the share of a photo's pixels that no two partners agree on; in the last step, of all photos' that
            don't enter the mesh.
        """
        if self.finished or len(self._depths) == len(self._views):
            self.finished = True
            kept = self._consistent()
            mesh = self._mesh_of(kept)
            self._show(mesh)
            share = sum(int((depth > 0).sum()) for depth in kept) / sum(depth.size for depth in kept)
            return {"loss": 1.0 - share, "triangles": float(len(mesh.triangles))}
        index = len(self._depths)
        near, _, far = self._ranges[index]
        chosen = self._partners[index]
        photo = self._for_stereo(index)
        depth, votes = find_depth(
            photo, [self._for_stereo(other) for other in chosen], near, far, self._threads
        )
        self._depths.append(depth)
        self._votes.append(votes)
        self._scene = None
        counted = max(int(photo.counts.sum()), 1)
        sure = int(((votes >= 2) & photo.counts).sum())
        return {"loss": 1.0 - sure / counted, "partners": float(len(chosen))}

    def render(self, camera: Any) -> Rendering:
        """The mesh, in the colours of the photos that see it at the least angles.

        Where there is no mesh: the capture's background if its photos had transparency. Else the photos again, on a surface
        that continues what is around smoothly, or on a plane where nothing is; its opacity is 0 and its depth unknown, as
        it is made up. What no photo shows takes the mesh's own colour, or that of what is around.
        """
        scene = self._scene_now()
        ours = self._frame.camera(camera)
        depth, mesh_colour = scene.seen(ours)
        hit = depth > 0
        stand_in = self._stand_in(ours, depth)
        points = (ours.rays() * stand_in[..., None]).astype(np.float32) @ ours.R.astype(np.float32)
        points += ours.centre.astype(np.float32)
        rows, columns = (np.unique(np.linspace(0, size - 1, PLACES).astype(int)) for size in hit.shape)
        places = points[np.ix_(rows, columns)].reshape(-1, 3).astype(np.float64)
        blended = int(self._settings["blend"])
        nearest = nearest_cameras(self._cameras, ours, places, CANDIDATES * blended)
        sources = [
            Source(self._cameras[index], self._photos[index], self._views[index].mask, self._seen[index])
            for index in nearest
        ]
        image = mesh_colour.copy()
        wanted = hit if self._has_alpha else np.ones_like(hit)
        done = hit.copy()
        for blockers in (True, False):
            todo = wanted if blockers else wanted & ~done
            usable = sources if blockers else [source._replace(depth=None) for source in sources]
            colour, shown = blend(usable, ours, points[todo], blended)
            at = np.flatnonzero(todo.ravel())[shown]
            image.reshape(-1, 3)[at] = colour[shown]
            done.ravel()[at] = True
        if self._has_alpha:
            image[~hit] = self._background
        elif done.any():
            image = fill(image, done)
        else:
            image[:] = self._photos[nearest[0]].mean((0, 1)) / 255
        return Rendering(image, (depth * self._frame.scale).astype(np.float32), hit.astype(np.float32))

    def save(self, folder: Path) -> None:
        """Every depth map, and the mesh if there is one of just these."""
        for index, (depth, votes) in enumerate(zip(self._depths, self._votes)):
            np.save(folder / "depth-{:05d}.npy".format(index), depth)
            np.save(folder / "votes-{:05d}.npy".format(index), votes)
        if self._scene is not None:
            np.savez(folder / "mesh.npz", **self._scene.mesh._asdict())
        state = {"depths": len(self._depths), "finished": self.finished}
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """What :meth:`save` wrote."""
        state = json.loads((folder / "state.json").read_text())
        self.finished = state["finished"]
        self._depths, self._votes = (
            [np.load(folder / "{}-{:05d}.npy".format(kind, index)) for index in range(state["depths"])]
            for kind in ("depth", "votes")
        )
        self._scene = None
        if (folder / "mesh.npz").is_file():
            with np.load(folder / "mesh.npz") as arrays:
                self._show(Mesh(**{name: arrays[name] for name in Mesh._fields}))

    def export(self, folder: Path) -> None:
        """Write ``mesh.ply``, in the capture's coordinates, with a colour at each vertex."""
        write_ply(folder / "mesh.ply", self._scene_now().mesh, self._frame)

    def _for_stereo(self, index: int) -> Photo:
        photo = self._photos[index]
        # BT.601's luma; OpenCV's own differs in the last bit between its builds.
        grey = np.rint(photo @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        mask = self._views[index].mask
        counts = np.ones(grey.shape, bool) if mask is None else mask > 0.5
        if self._has_alpha:
            counts = counts & (np.abs(photo - self._background * 255) > EMPTY).any(-1)
        return Photo(grey, counts, self._cameras[index]).shrunk(int(self._settings["depth_side"]))

    def _stereo_cameras(self) -> List[Pinhole]:
        return [camera.scaled(*depth.shape[::-1]) for camera, depth in zip(self._cameras, self._depths)]

    def _consistent(self) -> List[np.ndarray]:
        return consistent(self._stereo_cameras(), self._depths, self._votes, self._partners, self._agreement)

    def _mesh_of(self, depths: List[np.ndarray]) -> Mesh:
        cameras = self._stereo_cameras()
        voxel = float(self._settings["voxel"]) / self._frame.scale or fitting_voxel(
            cameras,
            depths,
            float(self._settings["voxel_pixels"]),
            UNIT,
            int(self._settings["volume_mb"] * 1e6 / UNIT_BYTES),
        )
        if not voxel:
            return Mesh.empty()
        shown = (
            (camera, depth, shrunk_photo(self._photos[index], *depth.shape[::-1]))
            for index, (camera, depth) in enumerate(zip(cameras, depths))
        )
        return fuse(shown, voxel)

    def _scene_now(self) -> Scene:
        """The mesh of the depths that there are: a run that is looked at on its way has one too."""
        return self._scene or self._show(self._mesh_of(self._consistent()))

    def _show(self, mesh: Mesh) -> Scene:
        self._scene = Scene(mesh, self._threads)
        self._seen = Kept(self._seen_by_photo, KEPT_BYTES)
        return self._scene

    def _seen_by_photo(self, index: int) -> np.ndarray:
        return self._scene_now().seen(self._cameras[index])[0]

    def _stand_in(self, camera: Pinhole, depth: np.ndarray) -> np.ndarray:
        """``depth`` with something in its holes: smooth in 1/z; the scene's middle depth where it has nothing."""
        hit = depth > 0
        if not hit.any():
            away = [float(np.linalg.norm(other.centre - camera.centre)) for other in self._cameras]
            return np.full_like(depth, self._ranges[int(np.argmin(away))][1])
        inverse = np.divide(1, depth, where=hit, out=np.zeros_like(depth))
        return 1 / fill(inverse[..., None], hit)[..., 0]


def shrunk_photo(photo: np.ndarray, width: int, height: int) -> np.ndarray:
    """``uint8[height, width, 3]``."""
    if photo.shape[:2] == (height, width):
        return np.ascontiguousarray(photo)
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)


def cores() -> int:
    """How many cores this process may use; where the system can't tell, how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
