"""Sparse points for a capture whose poses are known: SIFT, matching, triangulation with the cameras held fixed.

Only training views are passed in: what a held-out view shows must not reach a method by way of the points.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .capture import CaptureView
from .sfm import Group, database_images, extract, match, quiet
from .source import Progress

EXHAUSTIVE_UP_TO = 120
"""Views; beyond that only pairs near each other by name are matched: 120 are 7,140 pairs, half a minute on 2
cores."""

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
        match(database, "exhaustive" if len(views) <= EXHAUSTIVE_UP_TO else "sequential", seed, progress)
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
