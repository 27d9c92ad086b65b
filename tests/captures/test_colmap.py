"""COLMAP models: axes and signs, text and binary, lenses, tracks, masks, EXIF, and damage."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

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
from turntable.captures import colmap
from turntable.captures.build import CaptureOptions, add_capture
from turntable.errors import TurntableError


def quaternion(pose: Pose) -> np.ndarray:
    """w, x, y, z of world to camera, by Bar-Itzhack's eigenvector (J. Guidance 23(6), 2000)."""
    r = np.stack([pose.right, -pose.up, pose.forward])
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    vector = np.linalg.eigh(k)[1][:, -1]
    return np.array([vector[3], *vector[:3]])


def scene(
    folder: Path, lens: str = "PINHOLE", extra: str = "", tracks: dict[int, list[int]] | None = None
) -> Path:
    """A model as text, after COLMAP's description of its format; every view sees every point unless said."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    head = f"{FOCAL} {FOCAL} {CX} {CY}" if lens != "SIMPLE_RADIAL" else f"{FOCAL} {CX} {CY}"
    (model / "cameras.txt").write_text(f"1 {lens} {WIDTH} {HEIGHT} {head} {extra}\n")
    images, seen = [], tracks or {point: list(range(9)) for point in range(len(POINTS))}
    for index, pose in enumerate(poses()):
        save(spots(pose.pixels()), folder / "images" / pose.name)
        q = " ".join(repr(float(v)) for v in quaternion(pose))
        r = np.stack([pose.right, -pose.up, pose.forward])
        t = " ".join(repr(float(v)) for v in -r @ pose.centre)
        observed = [
            f"{u} {v} {point + 1 if index in seen[point] else -1}"
            for point, (u, v) in enumerate(pose.pixels())
        ]
        images += [f"{index + 1} {q} {t} 1 {pose.name}", " ".join(observed)]
    (model / "images.txt").write_text("\n".join(images) + "\n")
    lines = []
    for point, xyz in enumerate(POINTS):
        track = " ".join(f"{index + 1} {point}" for index in seen[point])
        lines.append(f"{point + 1} {xyz[0]} {xyz[1]} {xyz[2]} {10 * point} 20 30 0.5 {track}")
    (model / "points3D.txt").write_text("\n".join(lines) + "\n")
    return folder


def to_binary(folder: Path) -> Path:
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    for path in model.iterdir():
        path.unlink()
    reconstruction.write_binary(model)
    return folder


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_points_project_where_they_were_seen(tmp_path: Path, binary: bool) -> None:
    folder = scene(tmp_path / "s")
    loaded = colmap.load(to_binary(folder) if binary else folder, source_options(tmp_path))
    for view, pose in zip(loaded.views, poses(), strict=True):
        assert view.name == pose.name and view.image_path.is_file()
        camera = POINTS @ view.R.T + view.t
        pixels = camera[:, :2] / camera[:, 2:] * view.camera.params[:2] + view.camera.params[2:4]
        np.testing.assert_allclose(pixels, pose.pixels(), atol=1e-6)
    assert loaded.points is not None and loaded.point_colours is not None
    np.testing.assert_allclose(loaded.points, POINTS)
    assert loaded.point_colours.tolist() == [[10 * point, 20, 30] for point in range(len(POINTS))]
    assert loaded.point_views == [tuple(pose.name for pose in poses())] * len(POINTS)


LENSES = {
    "SIMPLE_RADIAL": ([-0.2], lambda x, y, r2: (1 - 0.2 * r2, 0, 0)),
    "OPENCV": (
        [-0.2, 0.05, 0.01, -0.008],
        lambda x, y, r2: (
            1 - 0.2 * r2 + 0.05 * r2**2,
            0.02 * x * y - 0.008 * (r2 + 2 * x * x),
            0.01 * (r2 + 2 * y * y) - 0.016 * x * y,
        ),
    ),
    "OPENCV_FISHEYE": (
        [0.05, 0.0, 0.0, 0.0],
        lambda x, y, r2: ((np.arctan(r2**0.5) + 0.05 * np.arctan(r2**0.5) ** 3) / r2**0.5, 0, 0),
    ),
}


@pytest.mark.parametrize("lens", LENSES)
def test_undistorted_photos_agree_with_their_cameras(tmp_path: Path, lens: str) -> None:
    numbers, formula = LENSES[lens]
    folder = scene(tmp_path / "s", lens, " ".join(map(str, numbers)))
    for pose in poses():
        x, y = pose.plane(POINTS).T
        radial, dx, dy = formula(x, y, np.maximum(x * x + y * y, 1e-12))
        save(
            spots(np.stack([x * radial + dx, y * radial + dy], 1) * FOCAL + [CX, CY]),
            folder / "images" / pose.name,
        )
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions())
    assert_spots_where_cameras_say(capture, enough=20)


def smaller(folder: Path, factor: int, suffix: str = ".png") -> Path:
    """The photos once more in ``images_<factor>``, each pixel the mean of those that it stands for."""
    for path in sorted((folder / "images").iterdir()):
        with Image.open(path) as picture:
            image = np.asarray(picture)
        shown = image.reshape(HEIGHT // factor, factor, WIDTH // factor, factor, -1).mean((1, 3))
        save(shown.round().astype(np.uint8), folder / f"images_{factor}" / f"{path.stem}{suffix}")
    return folder


@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_smaller_photos_are_taken_from_the_folder_that_is_asked_for(tmp_path: Path, suffix: str) -> None:
    folder = smaller(scene(tmp_path / "s"), 2, suffix)
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions(images="images_2"))
    assert len(capture.views) == 9 and not capture.left_out
    assert_spots_where_cameras_say(capture, 5)  # the rest lie too close together at this size
    for view in capture.views:
        camera = view.camera
        assert (camera.width, camera.height, camera.fx) == (WIDTH / 2, HEIGHT / 2, FOCAL / 2)
        assert (camera.cx, camera.cy) == (CX / 2, CY / 2)
        assert view.origin["path"].endswith(f"images_2/{Path(view.name).stem}{suffix}")
    whole = add_capture(folder, tmp_path / "captures", CaptureOptions())
    assert whole.views[0].camera.width == WIDTH and whole.name != capture.name


def test_a_folder_of_photos_that_is_not_there_or_not_meant_is_refused(tmp_path: Path) -> None:
    folder = smaller(scene(tmp_path / "s"), 2)
    save(np.zeros((90, 80, 3), np.uint8), folder / "images_2" / poses()[1].name)
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions(images="images_2"))
    assert [(entry["name"], entry["why"]) for entry in capture.left_out] == [
        (poses()[1].name, f"{poses()[1].name} in images_2 is no scaling of it")
    ]
    (folder / "images_2" / poses()[1].name).unlink()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions(images="images_2", every=4))
    assert [entry["why"] for entry in capture.left_out] == [f"{poses()[1].name} in images_2 isn't there"]
    with pytest.raises(TurntableError, match="--images images_8: there is no such folder"):
        add_capture(folder, tmp_path / "captures", CaptureOptions(images="images_8"))
    for wrong in ("../images", "a/b", "", ".."):
        with pytest.raises(TurntableError, match="--images is the name of a folder"):
            add_capture(folder, tmp_path / "captures", CaptureOptions(images=wrong))
    (tmp_path / "photos").mkdir()
    save(np.zeros((90, 80, 3), np.uint8), tmp_path / "photos" / "1.png")
    with pytest.raises(TurntableError, match="--images is for sources that keep their photos in several"):
        add_capture(tmp_path / "photos", tmp_path / "captures", CaptureOptions(images="images_2"))


def test_a_smaller_photo_is_never_that_of_another_view(tmp_path: Path) -> None:
    folder = smaller(scene(tmp_path / "s"), 2)
    first = folder / "images_2" / poses()[0].name
    options = replace(source_options(tmp_path), images="images_2")
    for other in (f"{first.stem}.left.png", f"{first.stem}.png.png"):  # what a pattern of names would take
        first.rename(first.with_name(other))
        assert [entry.name for entry in colmap.load(folder, options).left_out] == [first.name]
        first.with_name(other).rename(first)
    first.rename(first.with_suffix(".PNG"))
    assert not colmap.load(folder, options).left_out
    shutil.copy(first.with_suffix(".PNG"), first.with_suffix(".jpg"))  # one of two: nobody knows which
    assert [entry.name for entry in colmap.load(folder, options).left_out] == [first.name]


def test_smaller_photos_have_masks_of_their_own_size(tmp_path: Path) -> None:
    folder = smaller(scene(tmp_path / "s"), 2)
    for name, size in (("masks", (HEIGHT, WIDTH)), ("masks_2", (HEIGHT // 2, WIDTH // 2))):
        save(np.full(size, 255, np.uint8), folder / name / f"{poses()[0].name}.png")
    options = replace(source_options(tmp_path), images="images_2")
    found = [view.mask_path for view in colmap.load(folder, options).views if view.mask_path]
    assert found == [folder / "masks_2" / f"{poses()[0].name}.png"]
    shutil.rmtree(folder / "masks_2")
    loaded = colmap.load(folder, options)
    assert not any(view.mask_path for view in loaded.views)
    assert loaded.notes == [
        "The masks are those of photos in images; images_2 has none (masks_2), so none is used."
    ]
    (folder / "images_2").rename(folder / "small")
    assert not any(view.mask_path for view in colmap.load(folder, replace(options, images="small")).views)


def test_points_that_training_views_did_not_see_twice_are_dropped(tmp_path: Path) -> None:
    # Of 9 views, 0 and 8 are held out.
    tracks = {0: [0, 8], 1: [0, 1, 8], 2: [0, 1, 2], 3: [1, 2], 4: [0, 8, 7], 5: [3, 4, 5]}
    folder = scene(tmp_path / "s", tracks=tracks)
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions())
    assert [view.name for view in capture.held_out] == ["00.png", "08.png"]
    np.testing.assert_allclose(capture.points()[0], POINTS[[2, 3, 5]])
    assert capture.document["points"] == {"count": 3, "from": "colmap", "dropped": 3}


def test_masks_lie_beside_the_images(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 80:] = 255
    save(mask, folder / "masks" / "01.png.png")
    views = colmap.load(folder, source_options(tmp_path)).views
    assert [view.mask_path is not None for view in views] == [False, True] + [False] * 7


@pytest.mark.parametrize("orientation", [3, 6])
def test_photos_are_held_as_colmap_saw_them_whatever_exif_says(tmp_path: Path, orientation: int) -> None:
    folder = scene(tmp_path / "s")
    exif = Image.Exif()
    exif[0x0112] = orientation
    for pose in poses():
        save(spots(pose.pixels()), folder / "images" / pose.name, exif=exif)
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions())
    assert not capture.left_out
    assert_spots_where_cameras_say(capture, enough=20)


def test_missing_and_misshapen_photos_are_named_and_used_nowhere(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")
    (folder / "images" / "03.png").unlink()
    save(np.zeros((60, 80, 3), np.uint8), folder / "images" / "04.png")
    (folder / "images" / "05.png").write_bytes((folder / "images" / "05.png").read_bytes()[:200])
    (tmp_path / "captures").mkdir()
    capture = add_capture(folder, tmp_path / "captures", CaptureOptions())
    why = {entry["name"]: entry["why"] for entry in capture.left_out}
    assert list(why) == ["03.png", "04.png", "05.png"]
    assert why["03.png"] == "the file is missing"
    assert "80×60" in why["04.png"] and "160×120" in why["04.png"]
    assert "can't be read" in why["05.png"]
    assert [view.name for view in capture.views] == [
        "00.png",
        "01.png",
        "02.png",
        "06.png",
        "07.png",
        "08.png",
    ]
    assert sorted(path.name for path in (capture.folder / "images").iterdir()) == [
        f"{view.name}.png" for view in capture.views
    ]


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("kept", [0, 5, 12, 50])
def test_an_empty_or_cut_model_is_refused_in_one_line(tmp_path: Path, name: str, kept: int) -> None:
    path = to_binary(scene(tmp_path / "s")) / "sparse" / "0" / name
    path.write_bytes(path.read_bytes()[:kept])
    (tmp_path / "captures").mkdir()
    with pytest.raises(TurntableError, match="damaged") as caught:
        add_capture(tmp_path / "s", tmp_path / "captures", CaptureOptions())
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "captures").iterdir())


def test_text_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")
    (folder / "sparse" / "0" / "cameras.txt").write_text("1 PINHOLE wide high\n")
    with pytest.raises(TurntableError, match="damaged") as caught:
        colmap.load(folder, source_options(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_lens_without_a_pinhole_twin_is_refused(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")
    (folder / "sparse" / "0" / "cameras.txt").write_text(
        f"1 EQUIRECTANGULAR {WIDTH} {HEIGHT} {WIDTH} {HEIGHT}\n"
    )
    with pytest.raises(TurntableError, match="EQUIRECTANGULAR"):
        colmap.load(folder, source_options(tmp_path))
