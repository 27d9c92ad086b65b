"""Structure from motion by pycolmap: from upright photos to cameras, poses and sparse points.

Single-threaded where the number of threads could change the result: the same photos give the same capture.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TurntableError
from . import colmap
from .gate import PhotoFacts, PoseReport
from .sfm import Group, database_images, extract, match, pairs_by_name, quiet
from .source import Source, SourceCamera, SourceOptions, SourceView

if TYPE_CHECKING:
    from .photos import Photo

MANY_PHOTOS = 20
"""Of one camera: they pin down all terms of OPENCV's distortion. On 50 photos of one phone it finds k1 0.053 and k2
−0.076 where the calibration has 0.058 and −0.081, and camera centres a third closer to the truth than with
SIMPLE_RADIAL, which knows a single term and finds 0.003. A handful of photos would overfit OPENCV's four."""

MAX_RATIO = 0.85
"""Looser than COLMAP's 0.8: few photos far apart share few matches, and verification sorts out the wrong ones. On
the 16 photos of a banana on a carpet 0.8 loses one photo (28 matches with its best neighbour), 0.85 none (35)."""

MIN_MODEL_SIZE = 3
"""Photos: fewer are no part of their own but photos that match by accident."""


@dataclass
class FoundPoses:
    """What structure from motion found.

    Args:
        report: for the gate.
        views: camera, R, t by photo name, of the kept model.
        points, colours, point_views: as in :class:`Source`.
        facts: numbers for the page.
    """

    report: PoseReport
    views: dict[str, tuple[SourceCamera, np.ndarray, np.ndarray]] = field(default_factory=dict)
    points: np.ndarray | None = None
    colours: np.ndarray | None = None
    point_views: list[tuple[str, ...]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def view(self, photo: Photo, mask: Path | None) -> SourceView:
        """The source view of a registered photo."""
        camera, rotation, translation = self.views[photo.name]
        return SourceView(photo.name, photo.original, camera, rotation, translation, mask)


def find_poses(photos: Sequence[Photo], matching: str, options: SourceOptions) -> FoundPoses:
    """Poses of all photos that can be registered.

    Args:
        photos: upright, at least three.
        matching: ``exhaustive`` or ``sequential``.
        options: seed, mapper, scratch folder, progress.
    """
    import pycolmap

    names = {photo.upright.name: photo.name for photo in photos}
    folder = photos[0].upright.parent
    database = options.scratch / "database.db"
    cameras: dict[str, list[str]] = {}
    for photo in photos:
        cameras.setdefault(photo.camera, []).append(photo.upright.name)
    groups = [
        Group("OPENCV" if len(taken) >= MANY_PHOTOS else "SIMPLE_RADIAL", tuple(taken))
        for taken in cameras.values()
    ]
    with quiet():
        pycolmap.set_random_seed(options.seed)
        extract(database, folder, groups, None, options.progress)
        with pycolmap.Database.open(database) as opened:
            _set_focal_lengths(opened, photos)
        match(database, pairs_by_name(list(names), matching), options.seed, options.progress, MAX_RATIO)
        models = _map(database, folder, len(photos), options)
        keypoints, matches = _counts(database, names)
    models.sort(key=lambda model: (-model.num_reg_images(), -model.num_points3D()))
    kept = models[0] if models else None
    registered = {names[image.name] for image in kept.images.values() if image.has_pose} if kept else set()
    elsewhere = {
        names[image.name] for model in models[1:] for image in model.images.values() if image.has_pose
    }
    facts = tuple(
        PhotoFacts(
            name=photo.name,
            registered=photo.name in registered,
            other_model=photo.name in elsewhere - registered,
            keypoints=keypoints.get(photo.name, 0),
            best_matches=matches.get(photo.name, 0),
            sharpness=photo.sharpness,
            brightness=photo.brightness,
            camera=photo.camera,
        )
        for photo in photos
    )
    if kept is None:
        return FoundPoses(PoseReport(facts, (), 0.0, 0.0))
    tracks = [point.track.length() for point in kept.points3D.values()]
    report = PoseReport(
        photos=facts,
        # photos that a smaller model shares with the kept one don't make it a part of its own
        model_sizes=(
            len(registered),
            *(size for size in _own_sizes(models[1:], names, registered) if size >= MIN_MODEL_SIZE),
        ),
        median_track_length=float(np.median(tracks)) if tracks else 0.0,
        reprojection_px=float(kept.compute_mean_reprojection_error()),
    )
    return _collect(kept, names, report)


def _own_sizes(models: Sequence[Any], names: dict[str, str], registered: set[str]) -> list[int]:
    return [
        len({names[image.name] for image in model.images.values() if image.has_pose} - registered)
        for model in models
    ]


def _set_focal_lengths(database: Any, photos: Sequence[Photo]) -> None:
    """Begin with EXIF's focal lengths where it has them: the upright copies have lost it."""
    stored = {image.name: image.camera_id for image in database.read_all_images()}
    for photo in photos:
        if photo.focal_px is not None:
            camera = database.read_camera(stored[photo.upright.name])
            camera.focal_length = photo.focal_px
            camera.has_prior_focal_length = True
            database.update_camera(camera)


def _map(database: Path, folder: Path, count: int, options: SourceOptions) -> list[Any]:
    import pycolmap

    out = options.scratch / "models"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    done = 0

    def another() -> None:
        nonlocal done
        done = min(done + 1, count)
        options.progress("poses", done, count)

    options.progress("poses", 0, count)
    if options.mapper == "global":
        settings = pycolmap.GlobalPipelineOptions()
        settings.num_threads = 1
        settings.random_seed = options.seed
        settings.mapper.global_positioning.use_gpu = False
        settings.mapper.bundle_adjustment.ceres.use_gpu = False
        return list(pycolmap.global_mapping(database, folder, out, options=settings).values())
    settings = pycolmap.IncrementalPipelineOptions()
    settings.num_threads = 1
    settings.random_seed = options.seed
    settings.mapper.random_seed = options.seed
    settings.triangulation.random_seed = options.seed
    settings.min_model_size = MIN_MODEL_SIZE
    return list(
        pycolmap.incremental_mapping(
            database,
            folder,
            out,
            options=settings,
            initial_image_pair_callback=another,
            next_image_callback=another,
        ).values()
    )


def _counts(database: Path, names: dict[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Keypoints per photo, and its verified matches with the photo that it shares most with."""
    import pycolmap

    with pycolmap.Database.open(database) as opened:
        ids = {image_id: names[name] for name, image_id in database_images(opened).items()}
        keypoints = {name: opened.num_keypoints_for_image(image_id) for image_id, name in ids.items()}
        best: dict[str, int] = {}
        pairs, inliers = opened.read_two_view_geometry_num_inliers()
        for pair, count in zip(pairs, inliers, strict=True):
            first, second = pair if isinstance(pair, tuple) else pycolmap.pair_id_to_image_pair(pair)
            for image_id in (first, second):
                name = ids[image_id]
                best[name] = max(best.get(name, 0), int(count))
    return keypoints, best


def _collect(model: Any, names: dict[str, str], report: PoseReport) -> FoundPoses:
    found = FoundPoses(report)
    for image in model.images.values():
        if not image.has_pose:
            continue
        pose = image.cam_from_world()
        found.views[names[image.name]] = (
            colmap.source_camera(model.cameras[image.camera_id]),
            np.array(pose.rotation.matrix(), np.float64),
            np.array(pose.translation, np.float64),
        )
    if not found.views:
        raise TurntableError(
            "pycolmap gave a model without any pose, which should never happen; please report it."
        )
    holder = Source("photos", [])
    colmap.set_points(holder, model)
    found.points, found.colours = holder.points, holder.point_colours
    if holder.point_views is not None:
        found.point_views = [tuple(sorted(names[name] for name in views)) for views in holder.point_views]
    found.facts = {
        "from": "found by pycolmap",
        "registered": len(found.views),
        "of": len(report.photos),
        "models": len(report.model_sizes),
        "points": 0 if found.points is None else len(found.points),
        "median_track_length": report.median_track_length,
        "mean_reprojection_px": report.reprojection_px,
    }
    return found
