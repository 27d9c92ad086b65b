"""COLMAP models, binary or text, with any camera model that pycolmap can undistort.

Poses are world to camera with OpenCV's axes and pixel centres at half integers already. COLMAP reads photos
as their pixels lie in the file and ignores EXIF's orientation, so its cameras are for photos held that way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TurntableError
from .cameras import check_intrinsics
from .source import LeftOut, Source, SourceCamera, SourceOptions, SourceView

FORMAT = "colmap"

_PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "dense/sparse", ".")


def recognise(source: Path) -> bool:
    """Whether a model lies in one of the usual places."""
    return source.is_dir() and _model_folder(source) is not None


def load(source: Path, options: SourceOptions) -> Source:
    """Read cameras, poses and sparse points with their tracks.

    Raises:
        TurntableError: no model, or a damaged one.
    """
    folder = _model_folder(source)
    if folder is None:
        raise TurntableError(
            f"A COLMAP source needs cameras and images (.bin or .txt) in {source} or its sparse/0."
        )
    model = read_model(folder)
    images = _images_folder(source, folder)
    masks = images.parent / "masks"
    loaded = Source(FORMAT, [])
    for image in sorted(model.images.values(), key=lambda image: image.name):
        if not image.has_pose:
            loaded.left_out.append(LeftOut(image.name, "the model has no pose for it"))
            continue
        camera = source_camera(model.cameras[image.camera_id])
        check_intrinsics(camera, f"The COLMAP model's camera of {image.name}")
        pose = image.cam_from_world()
        loaded.views.append(
            SourceView(
                name=image.name,
                image_path=images / image.name,
                camera=camera,
                R=np.array(pose.rotation.matrix(), np.float64),
                t=np.array(pose.translation, np.float64),
                mask_path=find_mask(masks, image.name),
                upright=False,
            )
        )
    set_points(loaded, model)
    loaded.poses = {"from": "the COLMAP model", "points": len(model.points3D)}
    return loaded


def source_files(source: Path) -> list[Path]:
    """The files besides the photos that the capture depends on."""
    folder = _model_folder(source)
    return (
        [] if folder is None else sorted(path for path in folder.iterdir() if path.suffix in (".bin", ".txt"))
    )


def read_model(folder: Path) -> Any:
    """The model in ``folder``, as pycolmap's Reconstruction.

    Raises:
        TurntableError: a file is empty or damaged.
    """
    import pycolmap

    suffix = ".bin" if (folder / "cameras.bin").exists() else ".txt"
    for name in ("cameras", "images", "points3D"):
        path = folder / f"{name}{suffix}"
        if path.exists() and path.stat().st_size == 0:
            raise TurntableError(f"The COLMAP model is damaged: {path} is empty (0 bytes). Export it again.")
    try:
        model = pycolmap.Reconstruction(folder)
        poses = [image.cam_from_world().matrix() for image in model.images.values() if image.has_pose]
    except (ValueError, RuntimeError, IndexError, MemoryError, OSError, KeyError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TurntableError(f"The COLMAP model in {folder} is damaged ({first}). Export it again.") from None
    if not poses:
        raise TurntableError(f"The COLMAP model in {folder} has no image with a pose. Export it again.")
    if not np.isfinite(poses).all():
        raise TurntableError(
            f"The COLMAP model in {folder} has a pose with NaN or infinity. Export it again."
        )
    return model


def source_camera(camera: Any) -> SourceCamera:
    """A pycolmap camera as a source camera."""
    return SourceCamera(
        str(camera.model_name), tuple(float(p) for p in camera.params), camera.width, camera.height
    )


def set_points(loaded: Source, model: Any) -> None:
    """Put a model's points, their colours and the names of the views that saw them into ``loaded``."""
    names = {image_id: image.name for image_id, image in model.images.items()}
    points = [model.points3D[key] for key in sorted(model.points3D)]
    if points:
        loaded.points = np.array([point.xyz for point in points], np.float64)
        loaded.point_colours = np.array([point.color for point in points], np.uint8)
        loaded.point_views = [
            tuple(sorted({names[element.image_id] for element in point.track.elements})) for point in points
        ]


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of the photo ``name``: ``<name>.png`` (COLMAP's convention), or of the same stem."""
    exact = folder / f"{name}.png"
    if exact.is_file():
        return exact
    stem = Path(name).with_suffix("")
    for suffix in (".png", ".jpg", ".jpeg"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    return None


def _model_folder(source: Path) -> Path | None:
    for place in _PLACES:
        folder = source / place
        for suffix in (".bin", ".txt"):
            if (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file():
                return folder
    return None


def _images_folder(source: Path, folder: Path) -> Path:
    for candidate in (
        source / "images",
        folder / "images",
        source.parent / "images",
        source.parent.parent / "images",
    ):
        if candidate.is_dir():
            return candidate
    return source
