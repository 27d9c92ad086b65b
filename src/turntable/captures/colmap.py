"""COLMAP models, binary or text, with any camera model that pycolmap can undistort.

Poses are world to camera with OpenCV's axes and pixel centres at half integers already. COLMAP reads photos
as their pixels lie in the file and ignores EXIF's orientation, so its cameras are for photos held that way.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Container
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TurntableError
from .cameras import check_intrinsics
from .images import is_picture, size_in_file
from .source import LeftOut, Source, SourceCamera, SourceOptions, SourceView

FORMAT = "colmap"

SCALING_PX = 2.0
"""By so much a side of a scaled photo may be off: some round up, some down, and the longer side follows the shorter."""

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
    model = read_model(with_points(folder, options.scratch))
    images = _images_folder(source, folder, options.images)
    masks = images.parent / _masks_of(options.images or "images")
    loaded = Source(FORMAT, [])
    if options.images is not None and not masks.is_dir() and (images.parent / "masks").is_dir():
        loaded.notes.append(
            f"The masks are those of photos in images; {options.images} has none ({masks.name}), so none is used."
        )
    for image in sorted(model.images.values(), key=lambda image: image.name):
        if not image.has_pose:
            loaded.left_out.append(LeftOut(image.name, "the model has no pose for it"))
            continue
        path, camera = images / image.name, model.cameras[image.camera_id]
        if options.images is not None:
            path = _of_any_suffix(path, {images / other.name for other in model.images.values()})
            if (size := _scaled_size(path, camera.width, camera.height)) is None:
                why = "is no scaling of it" if path.is_file() else "isn't there"
                loaded.left_out.append(LeftOut(image.name, f"{path.name} in {options.images} {why}"))
                continue
            camera = copy(camera)
            camera.rescale(*size)
        camera = source_camera(camera)
        check_intrinsics(camera, f"The COLMAP model's camera of {image.name}")
        pose = image.cam_from_world()
        loaded.views.append(
            SourceView(
                name=image.name,
                image_path=path,
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
    """The files that the capture depends on: the model's, and photos and masks, which may lie beside the source."""
    folder = _model_folder(source)
    if folder is None:
        return []
    images = _images_folder(source, folder)
    places = [images, images.parent / "masks"]
    if images.is_dir() and images != source:  # what --images may name, and the masks of that
        places += sorted(place for name in ("images", "masks") for place in images.parent.glob(f"{name}_*"))
    outside = [path for place in places for path in place.rglob("*") if is_picture(path)]
    return sorted([*outside, *(path for path in folder.iterdir() if path.suffix in (".bin", ".txt"))])


def with_points(folder: Path, scratch: Path) -> Path:
    """The model's folder; or, where it has no ``points3D`` (known poses often come without), a copy with none in it."""
    suffix = ".bin" if (folder / "cameras.bin").exists() else ".txt"
    if (folder / f"points3D{suffix}").exists():
        return folder
    whole = scratch / "model"
    whole.mkdir()
    for name in ("cameras", "images", "rigs", "frames"):
        if (folder / f"{name}{suffix}").exists():
            shutil.copyfile(folder / f"{name}{suffix}", whole / f"{name}{suffix}")
    (whole / f"points3D{suffix}").write_bytes(struct.pack("<Q", 0) if suffix == ".bin" else b"# no points\n")
    return whole


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
        if suffix == ".bin" and path.exists():
            _check_whole(path)
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


def _check_whole(path: Path) -> None:
    """Refuse a binary file that ends before all that it announces: pycolmap takes what isn't there for zeros.

    Layout: COLMAP's documentation, "Output Format", Binary File Format.

    Raises:
        TurntableError: it is cut short, or has a camera of a model that nobody knows.
    """
    data = path.read_bytes()
    skip = {"cameras.bin": _skip_camera, "images.bin": _skip_image, "points3D.bin": _skip_point}[path.name]
    try:
        (count,) = struct.unpack_from("<Q", data)
        offset = 8
        for _ in range(count):
            offset = skip(data, offset)
            if offset > len(data):
                raise ValueError
    except (struct.error, ValueError):
        raise TurntableError(
            f"The COLMAP model is damaged: {path} is cut short ({len(data)} bytes). Export it again."
        ) from None


def _skip_camera(data: bytes, offset: int) -> int:
    import pycolmap

    _, model, _, _ = struct.unpack_from("<IiQQ", data, offset)
    kind = pycolmap.CameraModelId(model)  # ValueError where there is no such model
    return offset + 24 + 8 * len(pycolmap.Camera.create_from_model_id(1, kind, 1.0, 1, 1).params)


def _skip_image(data: bytes, offset: int) -> int:
    end = data.index(b"\0", offset + 64)  # after the id, the pose and the camera's id comes the name
    (points,) = struct.unpack_from("<Q", data, end + 1)
    return end + 9 + 24 * points


def _skip_point(data: bytes, offset: int) -> int:
    (observations,) = struct.unpack_from("<Q", data, offset + 43)
    return offset + 51 + 8 * observations


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


def _masks_of(images: str) -> str:
    """The folder of masks beside a folder of photos: ``masks`` beside ``images``, ``masks_4`` beside ``images_4``."""
    return images.replace("images", "masks", 1) if "images" in images else f"masks_{images}"


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


def _images_folder(source: Path, folder: Path, name: str | None = None) -> Path:
    for place in (source, folder, source.parent, source.parent.parent):
        if (place / (name or "images")).is_dir():
            return place / (name or "images")
    if name is not None:
        raise TurntableError(f"--images {name}: there is no such folder beside the COLMAP model of {source}.")
    return source


def _of_any_suffix(path: Path, named: Container[Path]) -> Path:
    """The photo itself, or the one of its name that was written in another format when it was made smaller.

    Never one of those that are ``named`` themselves, and none where several could be meant.
    """
    if path.is_file() or not path.parent.is_dir():
        return path
    others = [
        one for one in path.parent.iterdir() if one.stem == path.stem and one not in named and is_picture(one)
    ]
    return others[0] if len(others) == 1 else path


def _scaled_size(path: Path, width: int, height: int) -> tuple[int, int] | None:
    """The size of a photo that is one of ``width`` × ``height`` scaled; None where it isn't, or can't be read."""
    size = size_in_file(path)
    if size is None:
        return None
    scale = max(size[0] / width, size[1] / height)
    off = max(abs(size[0] - width * scale), abs(size[1] - height * scale))
    return size if off <= SCALING_PX else None
