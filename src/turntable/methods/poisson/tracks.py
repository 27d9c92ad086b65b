"""Points that several photos see: COLMAP's triangulation and refinement, with the cameras held fixed."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

MAX_ERROR_PX = 1.5
"""Points that reproject worse are wrong matches: the cameras are known."""

MIN_ANGLE_DEG = 2.0
"""Between the rays of a point; COLMAP has 1.5. The depth of a point with less is anybody's guess."""


class Tracks(NamedTuple):
    """Points and who sees them.

    Args:
        points: ``float64[P, 3]`` in the world.
        errors: ``float64[P]``, mean reprojection errors in pixels.
        seen_points, seen_views: ``int64[S]``, one entry for each point in each view that it was matched in.
    """

    points: np.ndarray
    errors: np.ndarray
    seen_points: np.ndarray
    seen_views: np.ndarray


@contextmanager
def quiet() -> Iterator[None]:
    """Keep COLMAP's chatter out of the log; its errors stay."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def triangulate(
    cameras: Sequence[Any],
    places: Mapping[int, np.ndarray],
    matches: Mapping[tuple[int, int], np.ndarray],
    seed: int,
) -> Tracks:
    """Triangulate what was matched, on one thread, so that the same matches give the same bits.

    Args:
        cameras: of all views.
        places: by view, its features' places, ``float32[N, 2]`` in pixels.
        matches: by pair of views, rows of their features, ``uint32[K, 2]``.
        seed: for COLMAP's random choices.
    """
    import pycolmap

    none = Tracks(np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    if not any(len(pairs) for pairs in matches.values()):
        return none
    with TemporaryDirectory(prefix="poisson-") as scratch, quiet():
        pycolmap.set_random_seed(seed)
        database = Path(scratch) / "database.db"
        model = pycolmap.Reconstruction()
        with pycolmap.Database.open(database) as opened:
            for view in sorted(places):
                _add(opened, model, view, cameras[view], places[view])
            for (first, second), pairs in sorted(matches.items()):
                if len(pairs):
                    geometry = pycolmap.TwoViewGeometry()
                    geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
                    geometry.inlier_matches = pairs
                    opened.write_matches(first + 1, second + 1, pairs)
                    opened.write_two_view_geometry(first + 1, second + 1, geometry)
        (out := Path(scratch) / "model").mkdir()
        model = pycolmap.triangulate_points(model, database, scratch, out, options=_options(seed))
    kept = [model.points3D[key] for key in sorted(model.points3D)]
    kept = [point for point in kept if point.error <= MAX_ERROR_PX and np.isfinite(point.xyz).all()]
    if not kept:
        return none
    seen = [(row, element.image_id - 1) for row, point in enumerate(kept) for element in point.track.elements]
    seen_points, seen_views = np.array(seen, np.int64).T
    return Tracks(
        np.array([point.xyz for point in kept], np.float64),
        np.array([point.error for point in kept], np.float64),
        np.ascontiguousarray(seen_points),
        np.ascontiguousarray(seen_views),
    )


def _options(seed: int) -> Any:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = seed
    options.extract_colors = False
    options.min_num_matches = 1
    options.mapper.num_threads = 1
    options.mapper.filter_max_reproj_error = MAX_ERROR_PX
    options.mapper.filter_min_tri_angle = MIN_ANGLE_DEG
    options.triangulation.random_seed = seed
    options.triangulation.min_angle = MIN_ANGLE_DEG
    options.triangulation.ignore_two_view_tracks = False
    return options


def _add(database: Any, model: Any, view: int, camera: Any, places: np.ndarray) -> None:
    """Put a view with its known camera into the database and the model; COLMAP's numbers begin at 1."""
    import pycolmap

    lens = pycolmap.Camera(
        model="PINHOLE",
        width=camera.width,
        height=camera.height,
        params=[camera.fx, camera.fy, camera.cx, camera.cy],
        camera_id=view + 1,
        has_prior_focal_length=True,
    )
    database.write_camera(lens, use_camera_id=True)
    name = f"{view:06d}"
    database.write_image(pycolmap.Image(name=name, camera_id=view + 1, image_id=view + 1), use_image_id=True)
    database.write_keypoints(view + 1, places)
    model.add_camera_with_trivial_rig(lens)
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(camera.R), camera.t)
    model.add_image_with_trivial_frame(pycolmap.Image(name=name, camera_id=view + 1, image_id=view + 1), pose)
