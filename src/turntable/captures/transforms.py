"""``transforms.json``: Blender's (NeRF-synthetic), instant-ngp's and nerfstudio's.

Every frame has a camera-to-world matrix with OpenGL's axes. Principal points come from COLMAP in all known
writers (instant-ngp's and nerfstudio's scripts copy them unchanged, Blender's is the picture's centre), so
pixel centres are at half integers already. nerfstudio's ``applied_transform`` is contained in its matrices
and in its ``ply_file_path`` alike, so nothing is left to apply. Blender's flavour brings its own split:
``transforms_train.json`` is for training, ``transforms_test.json`` is held out, ``transforms_val.json`` is
not used (as in the papers). nerfstudio's ``train_filenames`` and ``test_filenames`` are a split too.
"""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import TurntableError
from ..worker.ply import read_points
from .cameras import check_intrinsics, common_names, from_opengl, matrix_of
from .images import upright_size
from .source import LeftOut, Source, SourceCamera, SourceOptions, SourceView

FORMAT = "transforms"

_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp")


def recognise(source: Path) -> bool:
    """Whether ``source`` is a transforms.json or a folder with one, or with Blender's pair."""
    if source.is_file():
        return source.suffix == ".json"
    return (source / "transforms.json").is_file() or (source / "transforms_train.json").is_file()


def load(source: Path, options: SourceOptions) -> Source:
    """Read the cameras of every frame.

    Raises:
        TurntableError: damaged JSON, a matrix that is no pose, a lens that isn't known.
    """
    if source.is_file():
        files = {source: None}
    elif (source / "transforms.json").is_file():
        files = {source / "transforms.json": None}
    else:
        files = {source / "transforms_train.json": False, source / "transforms_test.json": True}
        if not (source / "transforms_test.json").is_file():
            files = {source / "transforms_train.json": None}
    loaded = Source(FORMAT, [])
    for path, held_out in files.items():
        _load_file(path, held_out, loaded)
    if (source / "transforms_val.json").is_file() and len(files) > 1:
        loaded.notes.append("transforms_val.json is not used: the split is that of the train and test files.")
    return loaded


def source_files(source: Path) -> list[Path]:
    """The files that the capture depends on: besides the folder's photos those that frames name, wherever they lie."""
    folder = source.parent if source.is_file() else source
    files = {*folder.glob("transforms*.json"), *folder.glob("*.ply")}
    for path in sorted(folder.glob("transforms*.json")):
        with contextlib.suppress(TurntableError):  # what is wrong with it, load says
            frames = _read(path).get("frames")
            for frame in frames if isinstance(frames, list) else []:
                if isinstance(frame, dict):
                    named = (frame.get(key) for key in ("file_path", "mask_path"))
                    files.update(
                        found for name in named if isinstance(name, str) and (found := _find(folder, name))
                    )
    return sorted(files)


def _load_file(path: Path, held_out: bool | None, into: Source) -> None:
    document = _read(path)
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise TurntableError(
            f"{path.name} needs a list of frames with at least one entry, not {str(frames)[:60]!r}."
        )
    paths = []
    for index, frame in enumerate(frames):
        if (
            not isinstance(frame, dict)
            or not isinstance(frame.get("file_path"), str)
            or not frame["file_path"]
        ):
            raise TurntableError(f"{path.name}: frame {index} needs a file_path; it has {str(frame)[:60]!r}.")
        paths.append(frame["file_path"])
    names = common_names(paths) if held_out is None else [p.removeprefix("./") for p in paths]
    split = _own_split(document)
    for frame, name in zip(frames, names, strict=True):
        photo = _find(path.parent, frame["file_path"])
        matrix = matrix_of(frame.get("transform_matrix"), f"{path.name}: transform_matrix of {name}")
        rotation, translation = from_opengl(matrix, f"{path.name}: transform_matrix of {name}")
        if photo is None:
            into.left_out.append(LeftOut(name, "the file is missing"))
            continue
        if Path(name).suffix == "":
            name += photo.suffix
        size = _size(frame, document) or upright_size(photo)
        if size is None:
            into.left_out.append(LeftOut(name, "the file is no picture that can be read"))
            continue
        camera = _camera(frame, document, size, f"{path.name}: {name}")
        mask = frame.get("mask_path")
        if mask is not None and not isinstance(mask, str):
            raise TurntableError(
                f"{path.name}: mask_path of {name} must be a file's path, not {str(mask)[:60]!r}."
            )
        said = held_out
        if said is None and split is not None:
            said = split.get(_plain(frame["file_path"]))
            if said is None:
                into.left_out.append(LeftOut(name, "neither train_filenames nor test_filenames names it"))
                continue
        into.views.append(
            SourceView(name, photo, camera, rotation, translation, path.parent / mask if mask else None, said)
        )
    if isinstance(document.get("ply_file_path"), str) and (path.parent / document["ply_file_path"]).is_file():
        try:
            into.points, into.point_colours = read_points(path.parent / document["ply_file_path"])
        except ValueError as error:
            into.notes.append(f"The sparse points could not be read and are made anew: {error}.")
        else:
            into.notes.append(
                f"The sparse points are those of {document['ply_file_path']}, which doesn't say which photos "
                "saw them: some may come from held-out ones."
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TurntableError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise TurntableError(f"{path} must hold a JSON object, not {type(document).__name__}.")
    return document


def _own_split(document: dict[str, Any]) -> dict[str, bool] | None:
    """nerfstudio's ``train_filenames`` and ``test_filenames``: whether a file is held out."""
    lists = {}
    for key in ("train_filenames", "test_filenames"):
        names = document.get(key)
        if not names:
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TurntableError(
                f"transforms.json: {key} must be a list of file names, not {str(names)[:60]!r}."
            )
        lists[key] = {_plain(name) for name in names}
    both = sorted(lists["train_filenames"] & lists["test_filenames"])
    if both:
        raise TurntableError(
            f"transforms.json: a photo is for training or held out, but {both[0]!r} stands in both "
            "train_filenames and test_filenames. Remove it from one."
        )
    return dict.fromkeys(lists["train_filenames"], False) | dict.fromkeys(lists["test_filenames"], True)


def _plain(file_path: str) -> str:
    return PurePosixPath(file_path.replace("\\", "/")).as_posix()


def _find(folder: Path, file_path: str) -> Path | None:
    photo = folder / file_path.replace("\\", "/")
    if photo.is_file():
        return photo
    if photo.suffix not in _SUFFIXES:
        for suffix in _SUFFIXES:
            with_suffix = photo.with_name(photo.name + suffix)
            if with_suffix.is_file():
                return with_suffix
    return None


def _size(frame: dict[str, Any], document: dict[str, Any]) -> tuple[int, int] | None:
    width, height = frame.get("w", document.get("w")), frame.get("h", document.get("h"))
    if width is None or height is None:
        return None
    if not all(
        isinstance(side, int | float) and math.isfinite(side) and side >= 1 for side in (width, height)
    ):
        raise TurntableError(
            f"transforms.json: w and h must be positive numbers, not {width!r} and {height!r}."
        )
    return int(width), int(height)


def _camera(
    frame: dict[str, Any], document: dict[str, Any], size: tuple[int, int], what: str
) -> SourceCamera:
    def number(key: str) -> float | None:
        value = frame.get(key, document.get(key))
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TurntableError(f"{what}: {key} must be a number, not {value!r}.")
        return float(value)

    def focal(key: str, angle: str, side: int) -> float | None:
        if (given := number(key)) is not None:
            return given
        fov = number(angle)
        if fov is not None and not 0 < fov < math.pi:
            raise TurntableError(f"{what}: {angle} is an angle in radians between 0 and π, not {fov}.")
        return None if fov is None else 0.5 * side / math.tan(0.5 * fov)

    width, height = size
    fx = focal("fl_x", "camera_angle_x", width)
    fy = focal("fl_y", "camera_angle_y", height)
    if fx is None and fy is None:
        raise TurntableError(f"{what} needs fl_x or camera_angle_x; it has neither. Add one.")
    if fx is not None and number("fl_y") is None:
        fy = fx  # the angles of some writers disagree in y; square pixels are the safer belief
    cx, cy = number("cx"), number("cy")
    head = (
        fy if fx is None else fx,
        fx if fy is None else fy,
        width / 2 if cx is None else cx,
        height / 2 if cy is None else cy,
    )
    k1, k2, k3, k4, p1, p2 = (number(key) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    model = str(frame.get("camera_model", document.get("camera_model", "OPENCV"))).upper()
    fisheye = model in ("OPENCV_FISHEYE", "FISHEYE") or bool(document.get("is_fisheye"))
    if fisheye:
        camera = SourceCamera("OPENCV_FISHEYE", (*head, k1, k2, k3, k4), width, height)  # type: ignore[arg-type]
    elif model in (
        "OPENCV",
        "PINHOLE",
        "SIMPLE_PINHOLE",
        "PERSPECTIVE",
        "SIMPLE_RADIAL",
        "RADIAL",
        "FULL_OPENCV",
    ):
        if k4:
            raise TurntableError(f"{what}: k4 of a lens that is no fisheye isn't known here; it is {k4}.")
        if k3:
            params = (*head, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
            camera = SourceCamera("FULL_OPENCV", params, width, height)  # type: ignore[arg-type]
        else:
            camera = SourceCamera("OPENCV", (*head, k1, k2, p1, p2), width, height)  # type: ignore[arg-type]
    else:
        raise TurntableError(
            f"{what}: camera_model {model!r} isn't known here; OPENCV, OPENCV_FISHEYE and PINHOLE are."
        )
    check_intrinsics(camera, what)
    return camera


def opengl_matrix(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The camera-to-world ``float64[4, 4]`` with OpenGL's axes: what a ``transform_matrix`` holds."""
    matrix = np.eye(4)
    matrix[:3, :3] = R.T * np.array([1.0, -1.0, -1.0])
    matrix[:3, 3] = -R.T @ t
    return matrix
