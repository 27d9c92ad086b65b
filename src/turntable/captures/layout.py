"""A capture as other programs expect one.

A program that knows nothing of Turntable is given a folder in the flavour of nerfstudio and instant-ngp::

    <folder>/
    ├── transforms.json        the training views; the same as transforms_train.json
    ├── transforms_train.json
    ├── transforms_test.json   the held-out views: cameras alone, their photos are nowhere
    ├── images/                the training photos, PNG
    ├── masks/                 theirs, white where a pixel counts, where they have any
    └── points3D.ply           sparse points, where the capture has any

A held-out view's ``file_path`` names the file that its photo would have. Matrices are camera to world with OpenGL's
axes, pixel centres lie at half integers; no view has distortion.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from ..files import link_or_copy, write_json
from .capture import Capture, CaptureView
from .transforms import opengl_matrix

TEST = "transforms_test.json"
"""The held-out cameras: what a program's ``{cameras}`` names."""

_TRAIN = ("transforms.json", "transforms_train.json")


def write_transforms(capture: Capture, folder: Path) -> Path:
    """Lay ``capture`` out in ``folder``; one that was laid out there before is replaced.

    Photos, masks and points are hard links to the capture's where the file system allows it, else copies; never
    symbolic links, which would lead to the folder that the held-out photos lie in.

    Returns:
        ``folder``.

    Raises:
        FileExistsError: ``folder`` holds something else.
        OSError: it can't be written; nothing is left behind.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / TEST).is_file():
        raise FileExistsError(errno.EEXIST, "it holds something else than a capture's layout", str(folder))
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    _remove(aside, old)
    try:
        (aside / "images").mkdir(parents=True)
        top: dict[str, Any] = {"camera_model": "PINHOLE"}
        write_json(aside / TEST, {**top, "frames": [_frame(view) for view in capture.held_out]})
        if capture.points_path is not None:
            link_or_copy(capture.points_path, aside / "points3D.ply")
            top["ply_file_path"] = "points3D.ply"
        frames = []
        for view in capture.training:
            frames.append(frame := _frame(view))
            link_or_copy(view.image_path, aside / frame["file_path"])
            if view.mask_path is not None:
                (aside / "masks").mkdir(exist_ok=True)
                frame["mask_path"] = f"masks/{view.mask_path.name}"
                link_or_copy(view.mask_path, aside / frame["mask_path"])
        for name in _TRAIN:
            write_json(aside / name, {**top, "frames": frames})
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
    finally:
        _remove(aside, old)
    return folder


def _frame(view: CaptureView) -> dict[str, Any]:
    camera = view.camera
    return {
        "file_path": f"images/{view.image_path.name}",
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "w": camera.width,
        "h": camera.height,
        "transform_matrix": opengl_matrix(camera.R, camera.t).tolist(),
    }


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
