"""Making a capture: the same source gives the same capture, nothing stays half made, errors are one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captures.scenes import CX, CY, FOCAL, HEIGHT, POINTS, WIDTH, poses, save, spots
from turntable.captures import build
from turntable.captures.build import CaptureOptions, add_capture, add_source, safe_file_name
from turntable.captures.source import LeftOut, Progress, Source, SourceCamera, SourceView
from turntable.captures.split import HoldOut
from turntable.errors import TurntableError
from turntable.files import sha256_of


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    (tmp_path / "captures").mkdir()
    return tmp_path / "captures"


def scene(folder: Path, count: int = 9) -> Path:
    """A transforms.json with photos of spots; see test_transforms.py for what its numbers mean."""
    frames = []
    for pose in poses(9)[:count]:
        save(spots(pose.pixels()), folder / pose.name)
        matrix = np.eye(4)
        matrix[:3] = np.stack([pose.right, pose.up, -pose.forward, pose.centre], 1)
        frames.append({"file_path": pose.name, "transform_matrix": matrix.tolist()})
    top = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": CX, "cy": CY, "w": WIDTH, "h": HEIGHT}
    folder.mkdir(exist_ok=True)
    (folder / "transforms.json").write_text(json.dumps({**top, "frames": frames}))
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_adding_the_same_source_twice_gives_the_same_capture(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    first = add_capture(source, captures, CaptureOptions())
    before = tree(captures)
    steps: list[str] = []
    again = add_capture(
        source, captures, CaptureOptions(), Progress(lambda name, done, total: steps.append(name))
    )
    assert again.folder == first.folder and tree(captures) == before
    assert "photos" not in steps  # found, not made again


def test_another_bench_gets_the_same_capture_bit_for_bit(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    first = add_capture(source, captures, CaptureOptions(long_side=100))
    (tmp_path / "other").mkdir()
    second = add_capture(source, tmp_path / "other", CaptureOptions(long_side=100))
    assert tree(second.folder) == tree(first.folder)


def test_a_source_that_moved_is_the_same_capture(tmp_path: Path, captures: Path) -> None:
    first = add_capture(scene(tmp_path / "s"), captures, CaptureOptions())
    (tmp_path / "s").rename(tmp_path / "elsewhere")
    assert add_capture(tmp_path / "elsewhere", captures, CaptureOptions()).folder == first.folder


def test_other_settings_or_files_are_another_capture_with_the_next_name(
    tmp_path: Path, captures: Path
) -> None:
    source = scene(tmp_path / "s")
    names = [add_capture(source, captures, CaptureOptions(long_side=side)).name for side in (None, 100, 80)]
    assert names == ["s", "s-2", "s-3"]
    save(np.zeros((HEIGHT, WIDTH, 3), np.uint8), source / "03.png")
    assert add_capture(source, captures, CaptureOptions()).name == "s-4"


def test_what_isnt_asked_for_leaves_the_hash_as_it_was_before_there_was_hold_out() -> None:
    """Captures that earlier versions made are found again."""
    assert CaptureOptions(name="x", format="photos").settings() == {
        "long_side": None,
        "background": (1.0, 1.0, 1.0),
        "every": 8,
        "seed": 0,
        "accept_poses": False,
        "matching": "auto",
        "mapper": "incremental",
        "frames": 60,
    }


def test_another_hold_out_is_another_capture_which_says_what_was_held_out(
    tmp_path: Path, captures: Path
) -> None:
    source = scene(tmp_path / "s")
    usual = add_capture(source, captures, CaptureOptions())
    segment = add_capture(source, captures, CaptureOptions(hold_out=HoldOut.parse("segment:0.2")))
    assert (usual.name, segment.name) == ("s", "s-2")
    assert [view.name for view in usual.held_out] == ["00.png", "08.png"]
    assert [view.name for view in segment.held_out] == ["07.png", "08.png"]
    assert segment.document["split"]["words"].startswith("the last 20 % of the views by name")
    assert segment.document["settings"]["hold_out"] == {"rule": "segment", "value": 0.2}
    assert add_capture(source, captures, CaptureOptions(hold_out=HoldOut.parse("segment:0.2"))).name == "s-2"
    assert add_capture(source, captures, CaptureOptions(hold_out=HoldOut.parse("every:8"))).name == "s"


def test_a_list_with_an_unknown_name_leaves_nothing_behind(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    with pytest.raises(TurntableError, match=r"Unknown view in --hold-out's list '9.png'; known: 00.png"):
        add_capture(source, captures, CaptureOptions(hold_out=HoldOut("list", names=("03.png", "9.png"))))
    assert list(captures.iterdir()) == []


def test_the_users_hold_out_replaces_the_sources_split(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    document = json.loads((source / "transforms.json").read_text())
    names = [frame["file_path"] for frame in document["frames"]]
    document |= {"train_filenames": names[:6], "test_filenames": names[6:]}
    (source / "transforms.json").write_text(json.dumps(document))
    own = add_capture(source, captures, CaptureOptions())
    assert [view.name for view in own.held_out] == names[6:] and own.document["split"]["by"] == "source"
    users = add_capture(source, captures, CaptureOptions(hold_out=HoldOut.parse("every:8")))
    assert [view.name for view in users.held_out] == [names[0], names[8]]
    assert any("which --hold-out replaced" in note for note in users.document["notes"])


def test_a_name_that_is_taken_by_other_content_is_refused(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    add_capture(source, captures, CaptureOptions(name="mine"))
    assert add_capture(source, captures, CaptureOptions(name="mine")).name == "mine"
    with pytest.raises(TurntableError, match=r"'mine' already.*Choose another --name"):
        add_capture(source, captures, CaptureOptions(name="mine", every=4))


def test_the_content_hash_covers_what_scores_depend_on_and_nothing_else(
    tmp_path: Path, captures: Path
) -> None:
    source = scene(tmp_path / "s")
    first = add_capture(source, captures, CaptureOptions())
    # Options that make no difference make no other capture, unless one is asked for by name.
    assert add_capture(source, captures, CaptureOptions(frames=7)).folder == first.folder
    named = add_capture(source, captures, CaptureOptions(frames=7, name="other"))
    assert named.hash == first.hash and named.source_hash != first.source_hash
    assert first.hash != add_capture(source, captures, CaptureOptions(every=4)).hash
    assert first.hash != add_capture(source, captures, CaptureOptions(background=(0, 0, 0))).hash
    moved = json.loads((source / "transforms.json").read_text())
    moved["frames"][0]["transform_matrix"][0][3] += 0.25
    (source / "transforms.json").write_text(json.dumps(moved))
    assert first.hash != add_capture(source, captures, CaptureOptions()).hash


def test_capture_json_says_where_everything_came_from(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    (source / "04.png").unlink()
    capture = add_capture(source, captures, CaptureOptions(long_side=100))
    document = capture.document
    assert document["source"]["format"] == "transforms" and document["source"]["path"] == str(source)
    assert document["source"]["files"]["03.png"] == sha256_of(source / "03.png")
    assert document["settings"]["long_side"] == 100
    assert document["left_out"] == [{"name": "04.png", "why": "the file is missing"}]
    assert capture.views[0].origin == {
        "path": str(source / "00.png"),
        "sha256": sha256_of(source / "00.png"),
        "width": WIDTH,
        "height": HEIGHT,
    }
    assert {"turntable", "numpy", "pillow", "pycolmap"} <= set(document["versions"])


def test_a_json_file_by_itself_is_a_source(tmp_path: Path, captures: Path) -> None:
    capture = add_capture(scene(tmp_path / "s") / "transforms.json", captures, CaptureOptions())
    assert len(capture.views) == 9


def test_identical_photos_with_known_poses_are_noted(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    shutil.copyfile(source / "01.png", source / "02.png")
    capture = add_capture(source, captures, CaptureOptions())
    assert "The same photo stands under several names: 01.png, 02.png." in capture.document["notes"]


def set_json(source: Path, text: str) -> None:
    (source / "transforms.json").write_text(text)


def nan(source: Path) -> None:
    document = json.loads((source / "transforms.json").read_text())
    document["frames"][2]["transform_matrix"][1][1] = float("nan")
    set_json(source, json.dumps(document))


def cut(source: Path) -> None:
    for pose in poses():
        path = source / pose.name
        path.write_bytes(path.read_bytes()[:100])


def one(source: Path) -> None:
    for pose in poses()[1:]:
        (source / pose.name).unlink()


BAD: dict[str, tuple[Any, str]] = {
    "NaN in a matrix": (nan, "02.png must hold finite numbers"),
    "no JSON": (lambda source: set_json(source, "{"), "not valid JSON"),
    "all photos cut": (cut, r"at least 3 usable photos.* has 0\. Left out: 00.png: the file can't be read"),
    "one photo": (one, r"at least 3 usable photos.* has 1\. Left out: 01.png: the file is missing"),
    "a name twice": (
        lambda source: set_json(
            source, (source / "transforms.json").read_text().replace('"02.png"', '"01.png"')
        ),
        "'01.png' stands there twice",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_source_is_one_line_and_leaves_nothing(tmp_path: Path, captures: Path, bad: str) -> None:
    spoil, says = BAD[bad]
    source = scene(tmp_path / "s")
    spoil(source)
    with pytest.raises(TurntableError, match=says) as caught:
        add_capture(source, captures, CaptureOptions())
    assert "\n" not in str(caught.value)
    assert not list(captures.iterdir())


def test_an_empty_missing_or_unknown_source_is_one_line(tmp_path: Path, captures: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("no photos")
    for source, says in (
        ("empty", "is empty"),
        ("nowhere", "there is none at"),
        ("other", "transforms.json.*cameras.bin.*poses_bounds.npy.*_par.txt.*--format"),
    ):
        with pytest.raises(TurntableError, match=says) as caught:
            add_capture(tmp_path / source, captures, CaptureOptions())
        assert "\n" not in str(caught.value)
    assert not list(captures.iterdir())


def test_a_cut_photo_among_others_is_left_out_by_name(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    (source / "05.png").write_bytes((source / "05.png").read_bytes()[:100])
    capture = add_capture(source, captures, CaptureOptions())
    assert [entry["name"] for entry in capture.left_out] == ["05.png"]
    assert len(capture.views) == 8
    assert not (capture.folder / "images" / "05.png.png").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (CaptureOptions(long_side=3), "--long-side is at least 16 pixels, not 3"),
        (CaptureOptions(every=1), "--every is at least 2"),
        (CaptureOptions(frames=1), "--frames is at least 2"),
        (CaptureOptions(matching="psychic"), "--matching is one of auto"),
        (CaptureOptions(mapper="gps"), "--mapper is one of incremental"),
        (CaptureOptions(name="../x"), "--name takes up to 64"),
        (CaptureOptions(format="transform"), "Unknown format 'transform'.*Did you mean 'transforms'"),
        (CaptureOptions(background=(1, 2, 0)), "--background is three numbers"),
    ],
)
def test_options_that_cant_be_meant_are_refused(
    tmp_path: Path, captures: Path, options: CaptureOptions, says: str
) -> None:
    with pytest.raises(TurntableError, match=says):
        add_capture(scene(tmp_path / "s"), captures, options)
    assert not list(captures.iterdir())


class Full:
    """A disk that takes so many pictures and no more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, path: Path, image: np.ndarray) -> None:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.room -= 1


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, captures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "write_png", Full(4))
    with pytest.raises(OSError, match="No space left") as caught:
        add_capture(scene(tmp_path / "s"), captures, CaptureOptions())
    assert caught.value.errno == errno.ENOSPC
    assert not list(captures.iterdir())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 64 KiB, which only root can mount."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    mounted = mounted and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip(
            "mounting a small tmpfs needs root on Linux; the disk that fills up is tested without it too"
        )
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_nothing(tmp_path: Path, tiny_disk: Path) -> None:
    noise = np.random.default_rng(0)
    source = scene(tmp_path / "s")
    for pose in poses():
        save(noise.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), source / pose.name)
    with pytest.raises(OSError, match="No space left"):
        add_capture(source, tiny_disk, CaptureOptions())
    assert not list(tiny_disk.iterdir())


def test_ctrl_c_leaves_nothing(tmp_path: Path, captures: Path) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if name == "photos" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_capture(scene(tmp_path / "s"), captures, CaptureOptions(), Progress(stop))
    assert not list(captures.iterdir())


def test_what_a_killed_process_left_is_swept_and_a_living_ones_stays(tmp_path: Path, captures: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for folder in (f".adding-{dead.pid}-00ff00ff", f".loading-{dead.pid}-00ff00ff"):
        (captures / folder).mkdir()
    (captures / f".adding-{os.getpid()}-00ff00ff").mkdir()
    add_capture(scene(tmp_path / "s"), captures, CaptureOptions())
    assert sorted(path.name for path in captures.iterdir()) == [f".adding-{os.getpid()}-00ff00ff", "s"]


def made_by_code(folder: Path, names: list[str]) -> Source:
    views = []
    camera = SourceCamera("PINHOLE", (FOCAL, FOCAL, CX, CY), WIDTH, HEIGHT)
    for index, (name, pose) in enumerate(zip(names, poses(), strict=False)):
        photo = save(spots(pose.pixels()), folder / f"photo{index}.png")
        rotation = np.stack([pose.right, -pose.up, pose.forward])
        views.append(SourceView(name, photo, camera, rotation, -rotation @ pose.centre))
    return Source("code", views, points=POINTS, point_colours=np.zeros(POINTS.shape, np.uint8))


def test_odd_names_become_safe_and_unique_file_names(tmp_path: Path, captures: Path) -> None:
    names = ["left/a.png", "right/a.png", "A.png", "a.png", "what?*.png", "ä ö.png", "x" * 300, ".."]
    source = made_by_code(tmp_path, names)
    capture = add_source(lambda: source, {"test": 1}, captures, CaptureOptions(name="odd"), Progress())
    assert [view.name for view in capture.views] == sorted(names)
    files = [view.image_path.name for view in capture.views]
    assert len({file.lower() for file in files}) == len(names)
    assert "left__a.png.png" in files
    assert all(view.image_path.parent == capture.folder / "images" for view in capture.views)
    assert all(view.image().shape == (HEIGHT, WIDTH, 3) for view in capture.views)


@given(st.text(min_size=1))
def test_a_file_name_is_safe_whatever_the_name(name: str) -> None:
    file = safe_file_name(name)
    assert file and "/" not in file and "\\" not in file and "\0" not in file
    assert len(file.encode()) <= 200


def test_truth_points_and_notes_of_a_source_made_by_code_are_kept(tmp_path: Path, captures: Path) -> None:
    source = made_by_code(tmp_path, [f"{index}.png" for index in range(8)])
    (tmp_path / "mesh.ply").write_bytes(b"mesh")
    source.truth = {"mesh.ply": tmp_path / "mesh.ply", "depth/0.npy": tmp_path / "mesh.ply"}
    source.notes = ["Rendered."]
    source.left_out = [LeftOut("9.png", "too dark")]
    source.points = np.vstack([POINTS, [[np.nan, 0, 0]]])
    source.point_colours = None
    capture = add_source(lambda: source, {"test": 2}, captures, CaptureOptions(), Progress(), name="code")
    assert capture.name == "code"
    assert (capture.folder / "truth" / "depth" / "0.npy").read_bytes() == b"mesh"
    assert capture.document["truth"].keys() == {"mesh.ply", "depth/0.npy"}
    assert capture.document["points"] == {"count": 6, "from": "code", "dropped": 1}
    assert capture.document["notes"] == ["Rendered."] and capture.left_out[0]["name"] == "9.png"


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, captures: Path) -> None:
    source = made_by_code(tmp_path, ["a.png", "b\udcff.png", "c.png"])
    with pytest.raises(TurntableError, match="valid UTF-8"):
        add_source(lambda: source, {"test": 6}, captures, CaptureOptions(), Progress())
    assert not list(captures.iterdir())


def test_a_source_made_by_code_is_not_loaded_again(tmp_path: Path, captures: Path) -> None:
    source = made_by_code(tmp_path, [f"{index}.png" for index in range(8)])
    first = add_source(lambda: source, {"test": 3}, captures, CaptureOptions(), Progress())

    def never() -> Source:
        raise AssertionError("loaded again")

    assert add_source(never, {"test": 3}, captures, CaptureOptions(), Progress()).folder == first.folder


def test_two_processes_that_make_one_name_dont_overwrite_each_other(tmp_path: Path, captures: Path) -> None:
    source = made_by_code(tmp_path, [f"{index}.png" for index in range(8)])

    def meanwhile(name: str, done: int, total: int) -> None:
        if done == 8:  # after the name was found free, another process takes it
            options = replace(CaptureOptions(name="x"), every=4)
            add_source(lambda: source, {"test": 5}, captures, options, Progress())

    with pytest.raises(TurntableError, match="just made a capture called 'x'"):
        add_source(lambda: source, {"test": 4}, captures, CaptureOptions(name="x"), Progress(meanwhile))
    assert [path.name for path in captures.iterdir()] == ["x"]
    assert json.loads((captures / "x" / "capture.json").read_text())["settings"]["every"] == 4


def test_fox_is_one_capture_with_50_photos_and_7_held_out(data: Path, captures: Path) -> None:
    capture = add_capture(data / "fox", captures, CaptureOptions(long_side=96))
    assert (len(capture.views), len(capture.held_out), len(capture.left_out)) == (50, 7, 17)
    points, _ = capture.points()
    assert len(points) > 100
    assert capture.document["points"]["median_reprojection_px"] < 0.5


def test_the_bench_in_the_sources_own_folder_changes_nothing(tmp_path: Path) -> None:
    source = scene(tmp_path / "s")
    captures = source / "bench" / "captures"
    captures.mkdir(parents=True)
    (source / "bench" / "bench.toml").write_text("format = 1")
    first = add_capture(source, captures, CaptureOptions())
    assert add_capture(source, captures, CaptureOptions()).folder == first.folder


def test_a_photo_outside_of_the_folder_counts_for_the_source(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    (source / "03.png").rename(tmp_path / "elsewhere.png")
    document = json.loads((source / "transforms.json").read_text())
    for frame in document["frames"]:
        if frame["file_path"].endswith("03.png") or frame["file_path"].endswith("03"):
            frame["file_path"] = "../elsewhere.png"
    (source / "transforms.json").write_text(json.dumps(document))
    first = add_capture(source, captures, CaptureOptions())
    image = np.array(Image.open(tmp_path / "elsewhere.png"))
    Image.fromarray(255 - image).save(tmp_path / "elsewhere.png")
    assert add_capture(source, captures, CaptureOptions()).hash != first.hash


def test_a_training_copy_of_a_held_out_photo_is_left_out(tmp_path: Path, captures: Path) -> None:
    source = scene(tmp_path / "s")
    document = json.loads((source / "transforms.json").read_text())
    first = next(frame for frame in document["frames"] if "00" in frame["file_path"])
    shutil.copy(source / "00.png", source / "00b.png")
    document["frames"].append({**first, "file_path": first["file_path"].replace("00", "00b")})
    (source / "transforms.json").write_text(json.dumps(document))
    capture = add_capture(source, captures, CaptureOptions())
    assert {"name": "00b.png", "why": "the same photo as 00.png, which is held out"} in capture.left_out
    assert not (capture.folder / "images" / "00b.png.png").exists()


def test_a_capture_that_was_changed_on_the_disk_is_noticed(tmp_path: Path, captures: Path) -> None:
    capture = add_capture(scene(tmp_path / "s"), captures, CaptureOptions())
    capture.check()
    shutil.copy(capture.views[1].image_path, capture.views[0].image_path)
    with pytest.raises(TurntableError, match="has been changed since it was made"):
        capture.check()
