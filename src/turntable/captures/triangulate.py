"""Sparse points for a capture whose poses are known: SIFT, matching, triangulation with the cameras held fixed.

Only training views are passed in: what a held-out view shows must not reach a method by way of the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..worker.contract import Camera
from .capture import CaptureView
from .sfm import Group, database_images, extract, match, quiet
from .source import Progress

NEIGHBOURS = 12
"""Each view is matched with so many of those that stand nearest and look the same way. Of 43 views of the fox 307
pairs give 3,816 points, all 903 pairs 3,949, in three times the time."""

MAX_TURN = 1.2
"""Radians between two views' directions; SIFT matches hardly anything beyond."""

MAX_ERROR_PX = 2.0
"""Points that reproject worse than this are dropped: with exact poses they are wrong matches."""


@dataclass(frozen=True)
class Triangulation:
    """What was found.

    Args:
        points: ``float64[P, 3]`` in the world.
        colours: ``uint8[P, 3]``.
        reprojection_px: median over the points of their mean reprojection error, in pixels; NaN where P is 0.
        track_length: median number of views that a point was seen in; NaN where P is 0.
        note: what the user should know where P is 0, else "".
    """

    points: np.ndarray
    colours: np.ndarray
    reprojection_px: float
    track_length: float
    note: str


def triangulate(views: list[CaptureView], scratch: Path, seed: int, progress: Progress) -> Triangulation:
    """Triangulate sparse points from ``views``' photos and cameras.

    Args:
        views: training views; pinhole cameras.
        scratch: an empty folder for intermediate files.
        seed: for RANSAC.
        progress: told how far it is.
    """
    import pycolmap

    none = Triangulation(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), float("nan"), float("nan"), _NONE)
    if len(views) < 2:
        return none
    photos = scratch / "photos"
    photos.mkdir()
    masks = scratch / "masks"
    masks.mkdir()
    names = [f"{index:06d}.png" for index in range(len(views))]
    for name, view in zip(names, views, strict=True):
        (photos / name).symlink_to(view.image_path.resolve())
        if view.mask_path:
            (masks / f"{name}.png").symlink_to(view.mask_path.resolve())
    with quiet():
        pycolmap.set_random_seed(seed)
        database = scratch / "database.db"
        cameras = [Group("PINHOLE", (name,)) for name in names]
        extract(database, photos, cameras, masks if any(masks.iterdir()) else None, progress)
        model = pycolmap.Reconstruction()
        with pycolmap.Database.open(database) as opened:
            ids = database_images(opened)
            for name, view in zip(names, views, strict=True):
                _add_view(opened, model, ids[name], name, view)
        pairs = [
            (names[first], names[second]) for first, second in near_pairs([view.camera for view in views])
        ]
        match(database, pairs, seed, progress)
        progress("triangulating", 0, 0)
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = (
            1  # more threads may add points in another order: other bits for the same photos
        )
        options.random_seed = seed
        options.triangulation.random_seed = seed
        out = scratch / "model"
        out.mkdir()
        model = pycolmap.triangulate_points(model, database, photos, out, options=options)
    points = [model.points3D[key] for key in sorted(model.points3D)]
    points = [point for point in points if point.error <= MAX_ERROR_PX and np.isfinite(point.xyz).all()]
    if not points:
        return none
    return Triangulation(
        points=np.array([point.xyz for point in points], np.float64),
        colours=np.array([point.color for point in points], np.uint8),
        reprojection_px=float(np.median([point.error for point in points])),
        track_length=float(np.median([point.track.length() for point in points])),
        note="",
    )


_NONE = (
    "No sparse points could be triangulated (too little texture, or cameras that don't fit the photos); methods "
    "start without them."
)


def near_pairs(cameras: Sequence[Camera]) -> list[tuple[int, int]]:
    """Which views to match with which: each with those that stand nearest and look the same way.

    How far apart two views are is the angle between their directions, in radians, plus the distance between
    their places, in units of the places' mean distance from their middle.
    """
    directions = np.array([camera.R[2] for camera in cameras])
    places = np.array([-camera.R.T @ camera.t for camera in cameras])
    spread = np.linalg.norm(places - places.mean(0), axis=1).mean()
    turns = np.arccos(np.clip(directions @ directions.T, -1, 1))
    steps = np.linalg.norm(places[:, None] - places, axis=2) / (spread or 1.0)
    apart = np.where(turns > MAX_TURN, np.inf, turns + steps)
    np.fill_diagonal(apart, np.inf)
    pairs = set()
    for first, row in enumerate(apart):
        for second in np.argsort(row, kind="stable")[:NEIGHBOURS]:
            if np.isfinite(row[second]):
                pairs.add((min(first, int(second)), max(first, int(second))))
    return sorted(pairs)


def _add_view(database: Any, model: Any, image_id: int, name: str, view: CaptureView) -> None:
    """Put the known camera of a view in the place of the one that pycolmap guessed, and into ``model``."""
    import pycolmap

    stored = database.read_image(image_id)
    camera = pycolmap.Camera(
        model="PINHOLE",
        width=view.camera.width,
        height=view.camera.height,
        params=[view.camera.fx, view.camera.fy, view.camera.cx, view.camera.cy],
    )
    camera.camera_id = stored.camera_id
    camera.has_prior_focal_length = True
    database.update_camera(camera)
    model.add_camera_with_trivial_rig(camera)
    image = pycolmap.Image(name=name, camera_id=stored.camera_id, image_id=image_id)
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(view.camera.R), view.camera.t)
    model.add_image_with_trivial_frame(image, pose)
