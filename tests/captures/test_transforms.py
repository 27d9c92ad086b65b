"""transforms.json in its three flavours: axes, signs, lenses, splits, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures.scenes import (
    CX,
    CY,
    FOCAL,
    HEIGHT,
    POINTS,
    WIDTH,
    Pose,
    assert_spots_where_cameras_say,
    poses,
    save,
    source_options,
    spots,
)
from turntable.captures import transforms
from turntable.captures.build import CaptureOptions, add_capture
from turntable.errors import TurntableError
from turntable.worker.ply import encode_points


def matrix(pose: Pose) -> list[list[float]]:
    """Camera to world, OpenGL: the columns are right, up, backward and the centre."""
    columns = np.stack([pose.right, pose.up, -pose.forward, pose.centre], 1)
    return [*columns.tolist(), [0.0, 0.0, 0.0, 1.0]]


def write(folder: Path, frames: list[dict[str, Any]], name: str = "transforms.json", **top: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({**top, "frames": frames}))
    return folder


INTRINSICS = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": CX, "cy": CY, "w": WIDTH, "h": HEIGHT}


def scene(folder: Path, count: int = 9, **top: Any) -> Path:
    frames = []
    for pose in poses(count):
        save(spots(pose.pixels()), folder / "images" / pose.name)
        frames.append({"file_path": f"images/{pose.name}", "transform_matrix": matrix(pose)})
    return write(folder, frames, **{**INTRINSICS, **top})


def change(folder: Path, edit: Any) -> None:
    document = json.loads((folder / "transforms.json").read_text())
    edit(document)
    (folder / "transforms.json").write_text(json.dumps(document))


def test_points_project_where_they_were_seen(tmp_path: Path) -> None:
    loaded = transforms.load(scene(tmp_path / "s"), source_options(tmp_path))
    assert [view.name for view in loaded.views] == [pose.name for pose in poses()]
    for view, pose in zip(loaded.views, poses(), strict=True):
        camera = POINTS @ view.R.T + view.t
        fx, fy, cx, cy = view.camera.params[:4]
        pixels = camera[:, :2] / camera[:, 2:] * [fx, fy] + [cx, cy]
        np.testing.assert_allclose(pixels, pose.pixels(), atol=1e-9)


def brown(plane: np.ndarray, k1: float, k2: float, p1: float, p2: float, k3: float = 0.0) -> np.ndarray:
    """Brown's distortion as OpenCV's manual has it."""
    x, y = plane.T
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        1,
    )


def fisheye(plane: np.ndarray, k1: float, k2: float) -> np.ndarray:
    """The equidistant fisheye as OpenCV's manual has it."""
    r = np.linalg.norm(plane, axis=1)
    theta = np.arctan(r)
    return plane * (theta * (1 + k1 * theta**2 + k2 * theta**4) / np.maximum(r, 1e-12))[:, None]


@pytest.mark.parametrize(
    ("lens", "distort"),
    [
        ({}, lambda plane: plane),
        ({"k1": -0.2, "k2": 0.05, "p1": 0.01, "p2": -0.008}, lambda p: brown(p, -0.2, 0.05, 0.01, -0.008)),
        ({"k1": 0.2, "k2": 0.1, "k3": 0.3}, lambda p: brown(p, 0.2, 0.1, 0, 0, 0.3)),
        (
            {"camera_model": "OPENCV_FISHEYE", "k1": 0.05, "k2": -0.02},
            lambda p: fisheye(p, 0.05, -0.02),
        ),
    ],
    ids=["pinhole", "brown", "brown-k3", "fisheye"],
)
@pytest.mark.parametrize("long_side", [None, 113])
def test_photos_agree_with_their_cameras_after_undistortion_and_resizing(
    tmp_path: Path, lens: dict[str, Any], distort: Any, long_side: int | None
) -> None:
    folder = scene(tmp_path / "s", **lens)
    for pose in poses():
        save(spots(distort(pose.plane(POINTS)) * FOCAL + [CX, CY]), folder / "images" / pose.name)
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions(long_side=long_side))
    assert_spots_where_cameras_say(capture, enough=12 if long_side else 20)


def test_blender_brings_its_split_its_angle_and_its_alpha(tmp_path: Path) -> None:
    folder = tmp_path / "lego"
    angle = 2 * math.atan(WIDTH / 2 / FOCAL)
    for part, chosen in {"train": poses()[:5], "val": poses()[5:6], "test": poses()[6:]}.items():
        frames = []
        for index, pose in enumerate(chosen):
            photo = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
            photo[20:40, 20:60] = (255, 0, 0, 128)
            save(photo, folder / part / f"r_{index}.png")
            frames.append({"file_path": f"./{part}/r_{index}", "transform_matrix": matrix(pose)})
        write(folder, frames, f"transforms_{part}.json", camera_angle_x=angle)
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions())
    assert [view.name for view in capture.training] == [f"train/r_{index}.png" for index in range(5)]
    assert [view.name for view in capture.held_out] == [f"test/r_{index}.png" for index in range(3)]
    assert any("transforms_val.json" in note for note in capture.document["notes"])
    assert capture.has_alpha
    view = capture.views[0]
    assert view.camera.fx == pytest.approx(FOCAL) and view.camera.fy == pytest.approx(FOCAL)
    assert (view.camera.cx, view.camera.cy) == (WIDTH / 2, HEIGHT / 2)
    assert view.image()[0, 0].tolist() == [255, 255, 255]  # nothing there: the background
    assert view.image()[30, 30].tolist() == [255, 127, 127]  # half of it: 255 · 127/255
    assert view.image_path.name == "test__r_0.png.png"


def test_nerfstudio_brings_points_masks_lists_and_intrinsics_of_each_frame(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s", applied_transform=[[1, 0, 0, 5], [0, 1, 0, 5], [0, 0, 1, 5]])
    (folder / "sparse_pc.ply").write_bytes(encode_points(POINTS, np.full((len(POINTS), 3), 9, np.uint8)))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:60] = 255
    save(mask, folder / "masks" / "00.png")

    def edit(document: dict[str, Any]) -> None:
        document["ply_file_path"] = "sparse_pc.ply"
        document["frames"][0]["mask_path"] = "masks/00.png"
        document["frames"][1]["fl_x"] = 200.0
        names = [frame["file_path"] for frame in document["frames"]]
        document["train_filenames"] = names[:6]
        document["test_filenames"] = [f"./{name}" for name in names[6:8]]

    change(folder, edit)
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions())
    assert [view.name for view in capture.held_out] == ["06.png", "07.png"]
    assert [entry["name"] for entry in capture.left_out] == ["08.png"]
    assert capture.views[1].camera.fx == 200 and capture.views[2].camera.fx == FOCAL
    stored = capture.views[0].mask()
    assert stored is not None and (stored == (mask > 0)).all() and capture.views[1].mask() is None
    # applied_transform is in the matrices and in the points already
    np.testing.assert_array_equal(capture.points()[0], POINTS)
    assert any("held-out" in note for note in capture.document["notes"])


def test_a_matrix_with_a_scale_or_rounded_digits_is_straightened(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")

    def edit(document: dict[str, Any]) -> None:
        scaled = np.array(document["frames"][0]["transform_matrix"])
        scaled[:3, :3] *= 1.7
        document["frames"][0]["transform_matrix"] = scaled.tolist()
        document["frames"][1]["transform_matrix"] = np.round(
            document["frames"][1]["transform_matrix"], 3
        ).tolist()

    change(folder, edit)
    for view in transforms.load(folder, source_options(tmp_path)).views:
        np.testing.assert_allclose(view.R @ view.R.T, np.eye(3), atol=1e-12)


def set_matrix(row: int, column: int, value: float) -> Any:
    def edit(document: dict[str, Any]) -> None:
        document["frames"][3]["transform_matrix"][row][column] = value

    return edit


def set_top(**values: Any) -> Any:
    return lambda document: document.update(values)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (set_matrix(0, 0, math.nan), "03.png.* finite"),
        (set_matrix(1, 3, math.inf), "03.png.* finite"),
        (set_matrix(0, 0, 40.0), "03.png.* rotation"),
        (lambda d: d["frames"][3].update(transform_matrix=[[1, 2], [3]]), "03.png.* 4×4"),
        (lambda d: d["frames"][3].update(transform_matrix=np.diag([-1.0, 1, 1, 1]).tolist()), "mirrors"),
        (lambda d: d["frames"][3].pop("file_path"), "frame 3 needs a file_path"),
        (set_top(frames=[]), "list of frames"),
        (set_top(fl_x=-3), "positive"),
        (set_top(fl_x="wide"), "fl_x must be a number"),
        (set_top(w=0), "w and h"),
        (set_top(camera_model="PANORAMA"), "PANORAMA"),
        (lambda d: (d.pop("fl_x"), d.pop("fl_y")), "camera_angle_x"),
        (
            set_top(train_filenames=["images/00.png"], test_filenames=["./images/00.png"]),
            "stands in both",
        ),
    ],
)
def test_what_cant_be_a_camera_is_refused_in_one_line(tmp_path: Path, edit: Any, says: str) -> None:
    folder = scene(tmp_path / "s")
    change(folder, edit)
    with pytest.raises(TurntableError, match=says) as caught:
        transforms.load(folder, source_options(tmp_path))
    assert "\n" not in str(caught.value)


def test_only_camera_angle_y_is_enough(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")

    def edit(document: dict[str, Any]) -> None:
        del document["fl_x"], document["fl_y"]
        document["camera_angle_y"] = 2 * math.atan(HEIGHT / 2 / FOCAL)

    change(folder, edit)
    view = transforms.load(folder, source_options(tmp_path)).views[0]
    assert view.camera.params[:2] == pytest.approx((FOCAL, FOCAL))


def test_damaged_json_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text('{"frames": [')
    with pytest.raises(TurntableError, match="not valid JSON") as caught:
        transforms.load(tmp_path, source_options(tmp_path))
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1", "camera_model", "camera_angle_x"]
KEYS += ["mask_path", "train_filenames", "test_filenames", "ply_file_path", "frames", "is_fisheye"]


@settings(max_examples=150, deadline=None)
@given(
    top=st.dictionaries(st.sampled_from(KEYS), json_values),
    frame=st.dictionaries(st.sampled_from([*KEYS, "transform_matrix", "file_path"]), json_values),
)
def test_whatever_the_json_holds_it_is_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, top: dict[str, Any], frame: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    save(spots(POINTS[:1, :2]), folder / "a.png")
    good = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    document = {"fl_x": 10.0, "frames": [{**good, **frame}], **top}
    (folder / "transforms.json").write_text(json.dumps(document))
    try:
        loaded = transforms.load(folder, source_options(folder))
    except TurntableError as error:
        assert "\n" not in str(error)
    else:
        for view in loaded.views:
            assert np.isfinite(view.R).all() and np.isfinite(view.t).all()
            assert np.isfinite(view.camera.params).all()


def test_fox_has_50_photos_and_names_the_17_that_are_missing(data: Path, tmp_path: Path) -> None:
    loaded = transforms.load(data / "fox", source_options(tmp_path))
    assert len(loaded.views) == 50
    assert len(loaded.left_out) == 17
    assert {entry.why for entry in loaded.left_out} == {"the file is missing"}
    assert loaded.left_out[0].name == "0005.jpg"
