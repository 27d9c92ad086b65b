"""Memorised renderings are marked, and what was merely learned well isn't."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from captures.copies import COPIES, jpeg, resized, shifted
from conftest import make_capture
from turntable.captures.build import CaptureOptions, add_capture
from turntable.captures.capture import Capture
from turntable.captures.leakage import find_leakage
from turntable.methods.nearest.nearest import resized as as_nearest_resizes
from turntable.tasks.memorised import TrainingPhotos
from turntable.worker.png import write_png


@pytest.fixture(scope="module")
def temple(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the real captures of ../shared/data are not here")
    captures = tmp_path_factory.mktemp("captures")
    return add_capture(data / "temple", captures, CaptureOptions(long_side=320))


def test_a_training_photo_is_marked_identical_by_its_name(temple: Capture) -> None:
    photos = TrainingPhotos(temple)
    for view in temple.training:
        found = photos.memorised(view.image())
        assert found is not None and (found.training, found.identical, found.psnr) == (
            view.name,
            True,
            np.inf,
        )


@pytest.mark.parametrize("copy", COPIES)
def test_a_training_photo_encoded_anew_is_marked(temple: Capture, copy: str) -> None:
    photos = TrainingPhotos(temple)
    for view in temple.training[::4]:
        found = photos.memorised(COPIES[copy](view.image()), "templeSR0009.png")
        assert found is not None and (found.training, found.identical) == (view.name, False)
        assert 27 <= found.psnr < 60


def test_what_nearest_shows_at_another_size_is_marked(temple: Capture) -> None:
    photo = temple.training[3]
    for width, height in ((250, 190), (640, 480), (300, 225)):
        shown = as_nearest_resizes(photo.image().astype(np.float32) / 255, width, height)
        found = TrainingPhotos(temple).memorised((shown * 255 + 0.5).astype(np.uint8))
        assert found is not None and found.training == photo.name


def test_good_renderings_of_other_views_are_not_marked(temple: Capture) -> None:
    """The held-out photo itself, blurred as a splat is, or noisy: as good as a rendering can be."""
    photos = TrainingPhotos(temple)
    view = next(view for view in temple.held_out if view.name == "templeSR0009.png")
    photo = view.image()
    soft = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(1.5)))
    for rendering in (
        photo,
        soft,
        jpeg(photo, 40),
        resized(photo, 0.5),
        np.zeros_like(photo),
        photo * 0 + 90,
    ):
        assert photos.memorised(rendering) is None


def test_a_training_photo_seen_from_beside_is_not_marked(temple: Capture) -> None:
    """Moved by 1.5 % of its width, as no copy is."""
    photos = TrainingPhotos(temple)
    for view in temple.training[::4]:
        assert photos.memorised(shifted(view.image(), 5), "templeSR0009.png") is None


def test_a_good_rendering_of_a_leaked_view_is_not_called_memorised(temple: Capture) -> None:
    """templeSR0001 is held out and templeSR0011 shows the same: a method that learned the scene shows it as well."""
    photos = TrainingPhotos(temple)
    photo = next(view for view in temple.held_out if view.name == "templeSR0001.png").image()
    learned = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(0.6)))
    assert photos.memorised(learned, "templeSR0001.png") is None
    assert photos.memorised(learned) is None
    # For another view, there is no reason to show it.
    other = photos.memorised(learned, "templeSR0009.png")
    assert other is not None and other.training == "templeSR0011.png" and not other.identical
    shown = next(view for view in temple.training if view.name == "templeSR0011.png").image()
    found = photos.memorised(shown, "templeSR0001.png")
    assert found is not None and found.identical


def test_of_two_leaking_photos_the_one_that_is_shown_is_named(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "made", size=(96, 64))
    views = {view.name: view for view in capture.views}
    for name in ("0001.jpg", "0002.jpg"):
        shutil.copyfile(views["0000.jpg"].image_path, views[name].image_path)
    noisy = (views["0002.jpg"].image().astype(int) + 1).clip(0, 255).astype(np.uint8)
    write_png(views["0002.jpg"].image_path, noisy)
    leaks = find_leakage(capture).leaks
    assert [leak.training for leak in leaks][:2] == ["0001.jpg", "0002.jpg"]
    found = TrainingPhotos(capture).memorised(noisy, "0000.jpg")
    assert found is not None and (found.training, found.identical) == ("0002.jpg", True)
