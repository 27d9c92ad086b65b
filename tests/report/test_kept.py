"""What the page needs of a rendering is made once, found again, and never taken for that of another rendering."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from conftest import make_capture
from turntable.captures.capture import Capture
from turntable.report import kept
from turntable.report.images import write_pictures
from turntable.report.kept import Keeper, Recalled, keeping
from turntable.tasks.metrics import metrics
from turntable.tasks.views import ViewsTask, folder_of
from turntable.worker.png import read_png, write_png


@pytest.fixture
def counted(monkeypatch):
    """How many error maps have been made: a list that grows."""
    made = []

    def count(*pictures):
        made.append(1)
        return np.zeros(pictures[0].shape[:2], np.float32)

    monkeypatch.setattr(kept, "error_map", count)
    return made


@pytest.fixture
def rendered(capture, run_of):
    """A run with renderings, its folder, and its answer to the first held-out view."""
    run = run_of(capture, "splat", 9.0)
    view = capture.held_out[0]
    return folder_of(run.views_folder), f"views/{view.image_path.name}", view


def keep(capture, rendered):
    folder, answer, view = rendered
    return Keeper(capture).keep(folder, answer, view, view.image(), read_png(folder / answer), view.mask())


def test_what_was_kept_is_found_again(capture, rendered):
    made = keep(capture, rendered)
    assert Keeper(Capture.load(capture.folder)).find(*rendered) == made
    assert made.variants["psnr-half"] > 20
    assert made.rendering.is_file() and made.error_map.is_file()


def test_a_page_makes_what_is_not_there_and_the_next_takes_it(capture, run_of, counted, tmp_path):
    run = run_of(capture, "splat", 9.0)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_pictures(tmp_path / name, capture, [run], lambda done, total: None)
        assert len(counted) == 2  # held-out views
    pictures = [
        sorted(path.name for path in (tmp_path / name / "images").iterdir()) for name in ("one", "two")
    ]
    assert pictures[0] == pictures[1]
    for name in pictures[0]:
        assert (tmp_path / "one/images" / name).read_bytes() == (tmp_path / "two/images" / name).read_bytes()


def test_a_rendering_that_was_written_since_is_another(capture, rendered):
    folder, answer, _view = rendered
    keep(capture, rendered)
    picture = read_png(folder / answer)
    write_png(folder / answer, 255 - picture)
    assert Keeper(capture).find(*rendered) is None
    again = keep(capture, rendered)
    assert Keeper(capture).find(*rendered) == again


def test_the_same_size_at_another_time_is_another(capture, rendered):
    folder, answer, _ = rendered
    keep(capture, rendered)
    status = (folder / answer).stat()
    os.utime(folder / answer, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert Keeper(capture).find(*rendered) is None


@pytest.mark.parametrize("damage", ["", "{", "\x00\x00", "nothing"])
def test_what_a_killed_or_damaged_file_says_is_made_again(capture, rendered, damage):
    folder, _, view = rendered
    made = keep(capture, rendered)
    facts = folder / "page" / f"{view.name}.views.json"
    if damage == "nothing":
        facts.unlink()
    else:
        facts.write_text(damage)
    assert Keeper(capture).find(*rendered) is None
    assert keep(capture, rendered) == made == Keeper(capture).find(*rendered)


@pytest.mark.parametrize("lost", ["0000.jpg.views.webp", "0000.jpg.views-error.webp"])
def test_a_picture_that_was_deleted_is_made_again(capture, rendered, lost):
    keep(capture, rendered)
    (rendered[0] / "page" / lost).unlink()
    assert Keeper(capture).find(*rendered) is None


def test_what_was_kept_on_another_capture_is_not_taken(capture, rendered, tmp_path):
    keep(capture, rendered)
    other = make_capture(tmp_path / "other", size=(25, 16))
    assert other.hash != capture.hash
    assert Keeper(other).find(*rendered) is None


def test_what_an_older_turntable_kept_is_not_taken(capture, rendered, monkeypatch):
    keep(capture, rendered)
    monkeypatch.setattr(kept, "FORMAT", kept.FORMAT + 1)
    assert Keeper(capture).find(*rendered) is None


def test_pictures_with_loss_are_not_taken_where_lossless_ones_are_shown(capture, rendered, monkeypatch):
    monkeypatch.setattr(kept, "LOSSLESS_MEGAPIXELS", 0.0)
    keep(capture, rendered)
    assert Keeper(capture).find(*rendered)
    monkeypatch.setattr(kept, "LOSSLESS_MEGAPIXELS", 1.0)
    assert Keeper(capture).find(*rendered) is None


def test_a_missing_rendering_is_named_though_something_is_kept_of_it(capture, rendered):
    keep(capture, rendered)
    (rendered[0] / rendered[1]).unlink()
    with pytest.raises(FileNotFoundError):
        Keeper(capture).find(*rendered)


def test_a_training_photo_shown_again_is_recalled(tmp_path, run_of):
    capture = make_capture(tmp_path / "captures" / "textured", size=(64, 48))
    for index, view in enumerate(capture.views):
        write_png(
            view.image_path, np.random.default_rng(index).integers(0, 256, (48, 64, 3)).astype(np.uint8)
        )
    run = run_of(capture, "nearest", 0.0)
    view, training = capture.held_out[0], capture.training[2]
    folder, answer = folder_of(run.views_folder), f"views/{view.image_path.name}"
    write_png(folder / answer, training.image())
    keeper = Keeper(capture)
    made = keeper.keep(folder, answer, view, view.image(), training.image(), None)
    assert made.memorised == Recalled(training.name, True)
    assert keeper.find(folder, answer, view) == made
    own = keeper.keep(folder, answer, view, view.image(), view.image(), None)
    assert own.memorised is None


def score(capture, folder, mark, keep):
    chosen = {"psnr": metrics()["psnr"]}
    return ViewsTask(capture, chosen, keep).score(folder, mark, 800, 12.5)


def test_scoring_the_whole_budget_keeps_every_rendering(capture, run_of, counted):
    run = run_of(capture, "splat", 9.0)
    folder = folder_of(run.views_folder)
    scores = score(capture, folder, 1.0, keeping(capture))
    assert len(scores) == 2 == len(counted)
    for view in capture.held_out:
        assert Keeper(capture).find(folder, f"views/{view.image_path.name}", view)


def test_scoring_a_part_of_the_budget_keeps_nothing(capture, run_of, counted):
    folder = folder_of(run_of(capture, "splat", 9.0).views_folder)
    (folder / "curve").mkdir()
    (folder / "views").rename(folder / "curve" / "0.5")
    assert len(score(capture, folder, 0.5, keeping(capture))) == 2
    assert counted == [] and not (folder / "page").exists()


def test_a_full_disk_costs_no_run_its_scores(capture, run_of, monkeypatch):
    folder = folder_of(run_of(capture, "splat", 9.0).views_folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.files, "write_bytes", full)
    scores = score(capture, folder, 1.0, keeping(capture))
    assert scores == score(capture, folder, 1.0, None)
    assert (
        Keeper(capture).find(folder, f"views/{capture.held_out[0].image_path.name}", capture.held_out[0])
        is None
    )


def test_what_is_kept_is_plain_json(capture, rendered):
    keep(capture, rendered)
    document = json.loads((rendered[0] / "page" / "0000.jpg.views.json").read_text())
    assert set(document) == {"of", "variants", "memorised"}


def test_a_grey_rendering_is_kept_like_a_coloured_one(capture, rendered):
    folder, answer, view = rendered
    grey = np.full(view.image().shape[:2], 128, np.uint8)
    coloured = np.repeat(grey[..., None], 3, -1)
    keeper = Keeper(capture)
    first = keeper.keep(folder, answer, view, view.image(), grey, None)
    pixels = first.rendering.read_bytes(), first.error_map.read_bytes()
    second = keeper.keep(folder, answer, view, view.image(), coloured, None)
    assert pixels == (second.rendering.read_bytes(), second.error_map.read_bytes())
    assert replace(first) == second
