"""From raw photos to poses: real structure from motion on photos rendered by hand, and on real ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from captures.rooms import aligned_error, write_room
from conftest import DATA
from turntable.captures import photos
from turntable.captures.build import CaptureOptions, add_capture
from turntable.captures.photos import focal_in_pixels
from turntable.captures.source import Progress, Source, SourceOptions
from turntable.errors import TurntableError


def load(source: Path, scratch: Path, **options: object) -> Source:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    return photos.load(source, SourceOptions(scratch=scratch, **options))  # type: ignore[arg-type]


def centres(source: Source) -> np.ndarray:
    return np.array([-view.R.T @ view.t for view in sorted(source.views, key=lambda view: view.name)])


def test_poses_of_a_room_are_those_it_was_photographed_from(tmp_path: Path) -> None:
    truth = write_room(tmp_path / "room")
    found = load(tmp_path / "room", tmp_path / "scratch")
    assert found.poses["registered"] == found.poses["of"] == 8 and found.notes == [] and found.left_out == []
    assert aligned_error(centres(found), np.array([camera.centre for camera in truth])) < 0.02
    assert found.points is not None and found.point_views is not None and len(found.points) > 200
    assert all(len(set(names)) >= 2 for names in found.point_views)


def test_the_same_photos_give_the_same_poses_bit_for_bit(tmp_path: Path) -> None:
    write_room(tmp_path / "room")
    first, second = (load(tmp_path / "room", tmp_path / "scratch") for _ in range(2))
    assert np.array_equal(centres(first), centres(second))
    assert (
        first.points is not None and second.points is not None and np.array_equal(first.points, second.points)
    )


def test_photos_that_exif_turns_are_posed_upright(tmp_path: Path) -> None:
    truth = write_room(tmp_path / "room")
    for path in sorted((tmp_path / "room").iterdir())[::2]:
        with Image.open(path) as picture:
            turned = picture.rotate(90, expand=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise for looking at
        turned.save(path, quality=95, exif=exif)
    found = load(tmp_path / "room", tmp_path / "scratch")
    assert len(found.views) == 8 and all(view.camera.width == 320 for view in found.views)
    assert aligned_error(centres(found), np.array([camera.centre for camera in truth])) < 0.03


@pytest.mark.parametrize("stage", ["features", "matches", "poses"])
def test_ctrl_c_ends_the_search_for_poses(tmp_path: Path, stage: str) -> None:
    write_room(tmp_path / "room", 4)
    reached = []

    def interrupt(name: str, done: int, total: int) -> None:
        reached.append(name)
        if name == stage:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "room", tmp_path / "scratch", progress=Progress(interrupt))
    assert reached[-1] == stage


def test_nothing_of_pycolmaps_chatter_reaches_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_room(tmp_path / "room", 4)
    load(tmp_path / "room", tmp_path / "scratch", accept_poses=True)
    assert capfd.readouterr() == ("", "")


def test_two_rooms_mixed_are_diagnosed_with_the_photos_that_are_lost(tmp_path: Path) -> None:
    write_room(tmp_path / "rooms", 8, seed=0, prefix="kitchen")
    write_room(tmp_path / "rooms", 5, seed=1, prefix="garage")
    with pytest.raises(TurntableError) as caught:
        load(tmp_path / "rooms", tmp_path / "scratch")
    text = str(caught.value)
    assert "8 of 13 photos (62%) were registered" in text and "--accept-poses" in text
    assert all(f"garage{index:02d}.jpg" in text for index in range(5)) and "kitchen" not in text
    accepted = load(tmp_path / "rooms", tmp_path / "scratch", accept_poses=True)
    assert sorted(view.name for view in accepted.views) == [f"kitchen{index:02d}.jpg" for index in range(8)]
    assert {entry.name for entry in accepted.left_out} == {f"garage{index:02d}.jpg" for index in range(5)}
    assert any("Poses accepted although" in note for note in accepted.notes)


def test_blurred_photos_are_named_as_blurred(tmp_path: Path) -> None:
    write_room(tmp_path / "room")
    for index in (1, 3, 6):
        path = tmp_path / "room" / f"{index:02d}.jpg"
        with Image.open(path) as picture:
            blurred = picture.filter(ImageFilter.GaussianBlur(9))
        blurred.save(path)
    with pytest.raises(TurntableError, match=r"blurred \(01\.jpg, 03\.jpg, 06\.jpg\)"):
        load(tmp_path / "room", tmp_path / "scratch")


def test_copies_and_broken_photos_are_left_out_by_name(tmp_path: Path) -> None:
    write_room(tmp_path / "room")
    (tmp_path / "room" / "copy.jpg").write_bytes((tmp_path / "room" / "02.jpg").read_bytes())
    (tmp_path / "room" / "cut.jpg").write_bytes((tmp_path / "room" / "03.jpg").read_bytes()[:2000])
    found = load(tmp_path / "room", tmp_path / "scratch")
    why = {entry.name: entry.why for entry in found.left_out}
    assert why["copy.jpg"] == "the same picture as 02.jpg" and "can't be read" in why["cut.jpg"]
    assert len(found.views) == 8


def test_raw_photos_become_a_capture_and_the_second_time_the_same(tmp_path: Path) -> None:
    write_room(tmp_path / "room")
    (tmp_path / "captures").mkdir()
    first = add_capture(tmp_path / "room", tmp_path / "captures", CaptureOptions(name="first", long_side=160))
    second = add_capture(
        tmp_path / "room", tmp_path / "captures", CaptureOptions(name="second", long_side=160)
    )
    assert first.hash == second.hash and first.folder != second.folder
    assert [view.name for view in first.held_out] == ["00.jpg"]
    training = {view.name for view in first.training}
    assert len(training) == 7 and first.document["points"]["count"] > 100


def test_a_video_becomes_a_capture(tmp_path: Path) -> None:
    import av

    write_room(tmp_path / "room", 12)
    with av.open(str(tmp_path / "walk.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 240, "yuv420p", 8_000_000
        for path in sorted((tmp_path / "room").iterdir()):
            with Image.open(path) as picture:
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    found = load(tmp_path / "walk.mp4", tmp_path / "scratch", frames=8)
    assert found.poses["of"] == 8 and found.poses["matching"] == "sequential"
    assert len(found.views) >= 7 and all(view.name.startswith("frame_") for view in found.views)


def test_the_global_mapper_finds_the_room_too(tmp_path: Path) -> None:
    truth = write_room(tmp_path / "room")
    found = load(tmp_path / "room", tmp_path / "scratch", mapper="global")
    assert len(found.views) == 8
    assert aligned_error(centres(found), np.array([camera.centre for camera in truth])) < 0.05


@pytest.mark.parametrize(
    ("tags", "focal"),
    [
        ({0xA405: 36}, 36 / np.hypot(36, 24) * 500),
        ({0x920A: 50.0, 0xA20E: 2000.0, 0xA210: 3, 0xA002: 4000}, 50 * 200 * 400 / 4000),
        ({0x920A: 50.0}, None),
        ({0xA405: 0}, None),
        ({0xA405: "wide"}, None),
        ({}, None),
    ],
)
def test_exif_tells_the_focal_length_in_pixels_or_nothing(tags: dict, focal: float | None) -> None:
    found = focal_in_pixels(tags, 400, 300)
    assert found == pytest.approx(focal) if focal is not None else found is None


def test_a_real_set_of_photos_is_registered_whole(tmp_path: Path, data: Path) -> None:
    (tmp_path / "captures").mkdir()
    capture = add_capture(data / "banana", tmp_path / "captures", CaptureOptions(long_side=400))
    assert len(capture.views) == 16 and capture.left_out == ()
    assert capture.document["poses"]["mean_reprojection_px"] < 1
    points, _ = capture.points()
    inside = 0
    for view in capture.views:
        pixels, depth = view.camera.project(points)
        size = [view.camera.width, view.camera.height]
        inside += int(((depth > 0) & (pixels > 0).all(1) & (pixels < size).all(1)).sum())
    assert inside > 3 * len(points), "most points must lie in several photos"


def test_real_poses_agree_with_a_calibration_made_elsewhere(tmp_path: Path, data: Path) -> None:
    frames = json.loads((data / "fox" / "transforms.json").read_text())["frames"]
    chosen = [frame for frame in frames if (data / "fox" / frame["file_path"]).is_file()][:12]
    folder = tmp_path / "fox"
    folder.mkdir()
    for frame in chosen:
        shutil.copy(data / "fox" / frame["file_path"], folder)
    found = load(folder, tmp_path / "scratch")
    truth = {Path(frame["file_path"]).name: np.array(frame["transform_matrix"])[:3, 3] for frame in chosen}
    names = sorted(view.name for view in found.views)
    assert len(names) >= 10
    assert aligned_error(centres(found), np.array([truth[name] for name in names])) < 0.05


def test_the_real_captures_are_there_where_ci_says_so() -> None:
    if os.environ.get("CI") != "true":
        pytest.skip("only CI promises the real captures")
    assert DATA.is_dir(), "CI must have ../shared/data, or the tests of real photos skip for good"
