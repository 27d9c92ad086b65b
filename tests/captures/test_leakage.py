"""Leakage: what is planted is found by its content, and what lies along a path isn't."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captures.copies import brightened, jpeg, resized
from conftest import make_capture
from turntable.captures.build import CaptureOptions, add_capture
from turntable.captures.capture import Capture, content_hash
from turntable.captures.leakage import (
    RULE,
    Leak,
    Twins,
    find_leakage,
    find_leaks,
    leakage_of,
    told,
    told_twins,
)
from turntable.errors import TurntableError


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    (tmp_path / "captures").mkdir()
    return tmp_path / "captures"


@pytest.fixture
def fox(tmp_path: Path, data: Path) -> Path:
    """The first 14 photos of the fox, frames of a video along a path, to be tampered with."""
    (tmp_path / "fox" / "images").mkdir(parents=True)
    document = json.loads((data / "fox" / "transforms.json").read_text())
    names = sorted(path.name for path in (data / "fox" / "images").iterdir())[:14]
    document["frames"] = [frame for frame in document["frames"] if Path(frame["file_path"]).name in names]
    (tmp_path / "fox" / "transforms.json").write_text(json.dumps(document))
    for name in names:
        shutil.copyfile(data / "fox" / "images" / name, tmp_path / "fox" / "images" / name)
    return tmp_path / "fox"


def plant(fox: Path, photo: str, name: str, image: np.ndarray) -> None:
    """Add ``image`` as the photo ``name``, with the camera of ``photo``."""
    Image.fromarray(image).save(fox / "images" / name, quality=75)  # PNG has no use for it
    document = json.loads((fox / "transforms.json").read_text())
    frame = next(frame for frame in document["frames"] if frame["file_path"].endswith(photo))
    height, width = image.shape[:2]
    scale = width / document["w"]
    own = {key: document[key] * scale for key in ("fl_x", "fl_y", "cx", "cy")}
    copy = {**frame, "file_path": f"images/{name}", **own, "w": width, "h": height}
    document["frames"].append(copy)
    (fox / "transforms.json").write_text(json.dumps(document))


def photo_of(fox: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(fox / "images" / name).convert("RGB"))


def test_a_path_without_copies_has_no_leak(fox: Path, captures: Path) -> None:
    capture = add_capture(fox, captures, CaptureOptions(long_side=240))
    assert find_leakage(capture).leaks == find_leakage(capture).twins == ()
    assert capture.document["leakage"]["leaks"] == [] and leakage_of(capture) == []


def test_a_held_out_photo_that_is_planted_among_the_training_photos_is_found(
    fox: Path, captures: Path
) -> None:
    """Encoded anew under another name, and a smaller and brighter one: neither has the file's hash."""
    photo = photo_of(fox, "0012.jpg")
    plant(fox, "0012.jpg", "0012b.jpg", jpeg(photo, 60))
    plant(fox, "0012.jpg", "zz.png", brightened(resized(photo, 0.5), 1.1))
    capture = add_capture(fox, captures, CaptureOptions(long_side=480))
    leaks = leakage_of(capture)
    assert leaks == find_leaks(capture) != []
    assert [(leak.held_out, leak.training, leak.kind) for leak in leaks] == [
        ("0012.jpg", "0012b.jpg", "near-duplicate"),
        ("0012.jpg", "zz.png", "near-duplicate"),
    ]
    assert leaks[0].psnr is not None and leaks[1].psnr is not None
    assert leaks[0].psnr > 35 > leaks[1].psnr > 20  # the second one is brighter
    assert "1 held-out view is shown by training photos" in told(leaks) and "0012.jpg" in told(leaks)
    assert [note for note in capture.document["notes"] if "training views" in note] == [
        "Among the training views, photos show the same: 0012b.jpg and zz.png."
    ]


def test_a_photo_that_stands_twice_on_one_side_is_a_duplicate_and_no_leak(fox: Path, captures: Path) -> None:
    plant(fox, "0007.jpg", "zz.jpg", jpeg(photo_of(fox, "0007.jpg"), 60))
    capture = add_capture(fox, captures, CaptureOptions(long_side=240))
    assert leakage_of(capture) == []
    (twins,) = find_leakage(capture).twins
    assert (twins.first, twins.second, twins.held_out, twins.kind) == (
        "0007.jpg",
        "zz.jpg",
        False,
        "near-duplicate",
    )
    assert "Among the training views, photos show the same: 0007.jpg and zz.jpg." in capture.document["notes"]


def test_the_temples_ring_holds_one_view_twice(data: Path, captures: Path) -> None:
    """Middlebury's templeSR0001 and templeSR0011: two photos of one camera, one held out and one trained on."""
    (leak,) = leakage_of(add_capture(data / "temple", captures, CaptureOptions(long_side=320)))
    assert (leak.held_out, leak.training, leak.kind) == (
        "templeSR0001.png",
        "templeSR0011.png",
        "near-duplicate",
    )
    assert leak.psnr == pytest.approx(43, abs=2)


def copy_photo(capture: Capture, of: str, to: str) -> Capture:
    """The capture with the photo ``of`` in place of ``to``'s, as if it had been made so."""
    views = {view.name: view for view in capture.views}
    shutil.copyfile(views[of].image_path, views[to].image_path)
    document = {**capture.document, "hash": content_hash(capture.document, capture.folder)}
    (capture.folder / "capture.json").write_text(json.dumps(document))
    return Capture.load(capture.folder)


def test_identical_photos_are_leaks_at_any_size_and_have_no_psnr(tmp_path: Path) -> None:
    capture = copy_photo(make_capture(tmp_path / "made"), of="0003.jpg", to="0005.jpg")
    assert find_leaks(capture) == [Leak("0005.jpg", "0003.jpg", "identical", None)]
    assert "0005.jpg is the same as 0003.jpg" in told(find_leaks(capture))


def test_a_capture_that_was_made_before_is_looked_through_and_not_changed(tmp_path: Path) -> None:
    capture = copy_photo(make_capture(tmp_path / "made"), of="0003.jpg", to="0005.jpg")
    before = {path: path.stat().st_mtime_ns for path in capture.folder.rglob("*")}
    assert "leakage" not in capture.document
    assert leakage_of(capture) == [Leak("0005.jpg", "0003.jpg", "identical", None)]
    assert {path: path.stat().st_mtime_ns for path in capture.folder.rglob("*")} == before


def test_a_damaged_photo_is_named_in_one_line(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "made")
    capture.views[3].image_path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(TurntableError, match=r"Photo 0003.jpg of the capture can't be read.*again"):
        leakage_of(capture)


def test_what_an_older_rule_found_is_looked_for_again(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "made")
    found = {"leaks": [{"held_out": "0000.jpg", "training": "0001.jpg", "kind": "identical", "psnr": None}]}
    stored = Capture(capture.folder, {**capture.document, "leakage": {"rule": RULE, **found}})
    older = Capture(capture.folder, {**capture.document, "leakage": {"rule": 0, **found}})
    assert [leak.training for leak in leakage_of(stored)] == ["0001.jpg"]
    assert leakage_of(older) == []


def test_leakage_is_no_part_of_what_scores_depend_on(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "made")
    with_leakage = {**capture.document, "leakage": find_leakage(capture).to_json(), "split": {"by": "every"}}
    assert content_hash(with_leakage, capture.folder) == capture.hash


def test_many_duplicates_are_one_note_a_side() -> None:
    twins = [Twins(f"{index}.png", "z.png", index == 0, "identical") for index in range(6)]
    assert told_twins(twins) == [
        "Among the training views, photos show the same: 1.png and z.png, 2.png and z.png, 3.png and z.png "
        "and 2 more pairs.",
        "Among the held-out views, photos show the same: 0.png and z.png.",
    ]
    assert told([]) == "" and told_twins([]) == []
