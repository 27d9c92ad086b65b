"""The page's pictures show what was scored, and say so where they can't."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from turntable.errors import TurntableError
from turntable.report import kept
from turntable.report.images import write_pictures
from turntable.report.kept import SCALE_COLOURS, colour_map, dimmed
from turntable.worker.png import read_png, write_png


@pytest.fixture
def written(tmp_path):
    """``written(capture, runs)``: its pictures, whether they are lossless, and the page's folder."""

    def write(capture, runs):
        (folder := tmp_path / "page").mkdir()
        return *write_pictures(folder, capture, runs, lambda done, total: None), folder

    return write


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_scale_goes_from_its_first_to_its_last_colour_and_only_gets_brighter():
    colours = colour_map(np.linspace(0, 1, 256, dtype=np.float32)[None])[0]
    for colour, wanted in ((colours[0], SCALE_COLOURS[0]), (colours[-1], SCALE_COLOURS[-1])):
        assert "#{:02x}{:02x}{:02x}".format(*colour) == wanted
    brightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > -1.0).all()
    assert brightness[-1] - brightness[0] > 200


def test_what_the_mask_does_not_count_is_dimmed_and_the_rest_untouched():
    picture = np.full((2, 2, 3), 200, np.uint8)
    mask = np.array([[True, False], [True, True]])
    shown = dimmed(picture, mask)
    assert (shown[mask] == 200).all()
    assert (shown[~mask] == 150).all()
    assert dimmed(picture, None) is picture


def test_a_small_page_shows_the_scored_pixels_exactly(written, capture, run_of):
    run = run_of(capture, "splat", 9.0)
    pictures, lossless, folder = written(capture, [run])
    assert lossless
    for view in capture.held_out:
        shown = pictures[view.name]
        assert np.array_equal(pixels(folder / shown.photo.file), view.image())
        rendering = read_png(run.views_folder / view.image_path.name)
        assert np.array_equal(pixels(folder / shown.runs[run.id].rendering.file), rendering)
        assert (shown.photo.width, shown.photo.height) == (24, 16)
        assert shown.counted is None


def test_a_large_page_is_encoded_with_loss(written, capture, run_of, monkeypatch):
    monkeypatch.setattr(kept, "LOSSLESS_MEGAPIXELS", 0.0)
    run = run_of(capture, "splat", 9.0)
    pictures, lossless, folder = written(capture, [run])
    assert not lossless
    view = capture.held_out[0]
    assert not np.array_equal(pixels(folder / pictures[view.name].photo.file), view.image())


def test_under_a_mask_the_error_map_is_that_of_the_score(written, masked_capture, run_of):
    run = run_of(masked_capture, "splat", 30.0)
    pictures, _, folder = written(masked_capture, [run])
    view = masked_capture.held_out[0]
    mask = view.mask()
    shown = pictures[view.name]
    assert shown.counted == pytest.approx(mask.mean())
    error = pixels(folder / shown.runs[run.id].error_map.file)
    far = np.zeros_like(mask)
    far[-3:, -3:] = True  # a corner that ꟻLIP's filters can't reach from the mask: both are mid-grey there
    assert not mask[far].any()
    nothing = dimmed(colour_map(np.zeros(mask.shape, np.float32)), mask)
    assert np.array_equal(error[far], nothing[far])
    assert len(np.unique(error[mask], axis=0)) > 3


def test_a_missing_damaged_or_misshapen_rendering_is_named_not_hidden(written, capture, run_of):
    runs = [run_of(capture, "splat", noise) for noise in (1.0, 2.0, 3.0)]
    runs = [run.__class__(**{**run.__dict__, "id": f"run-{index}"}) for index, run in enumerate(runs)]
    file = capture.held_out[0].image_path.name
    (runs[0].views_folder / file).unlink()
    (runs[1].views_folder / file).write_bytes(b"no picture")
    write_png(runs[2].views_folder / file, np.zeros((3, 3, 3), np.uint8))
    pictures, _, _ = written(capture, runs)
    reasons = [pictures[capture.held_out[0].name].runs[run.id].missing for run in runs]
    assert "there is no file" in reasons[0]
    assert "not a PNG" in reasons[1]
    assert "3×3" in reasons[2] and "24×16" in reasons[2]
    assert all(pictures[capture.held_out[1].name].runs[run.id].missing is None for run in runs)


def test_a_damaged_capture_is_one_clear_line(written, capture):
    capture.held_out[0].image_path.write_bytes(b"")
    with pytest.raises(TurntableError, match=r"photo of view '0000\.jpg' can't be read"):
        written(capture, [])
