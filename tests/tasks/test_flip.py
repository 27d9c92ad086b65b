"""ꟻLIP: the authors' package as it is, its mask, and the same bits every time."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import flip_evaluator
import numpy as np
import pytest
from skimage import data as photos

from turntable.tasks.metrics import flip_map, metrics
from turntable.tasks.metrics.flip import PIXELS_PER_DEGREE, flip


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A photo, and the same blurred sideways and noisy."""
    photo = photos.astronaut()[:120, 100:260]
    noise = np.random.default_rng(2).normal(0, 8, photo.shape)
    return photo, np.clip(np.roll(photo, 2, 1) + noise, 0, 255).astype(np.uint8)


def test_the_pixels_per_degree_are_the_authors_default() -> None:
    assert pytest.approx(0.7 * (3840 / 0.7) * math.pi / 180, rel=1e-6) == PIXELS_PER_DEGREE


def test_is_the_mean_that_the_package_finds_with_nothing_set(pair: tuple[np.ndarray, np.ndarray]) -> None:
    photo, rendering = (one.astype(np.float32) / 255 for one in pair)
    _, mean, parameters = flip_evaluator.evaluate(photo, rendering, "LDR")
    assert flip(*pair) == pytest.approx(mean, abs=1e-5)
    assert parameters["ppd"] == pytest.approx(PIXELS_PER_DEGREE, rel=1e-6)


def test_the_map_is_the_pictures_size_and_within_0_and_1(pair: tuple[np.ndarray, np.ndarray]) -> None:
    error = flip_map(*pair)
    assert error.shape == (120, 160)
    assert error.dtype == np.float32
    assert 0 <= error.min() < error.max() <= 1
    assert error.mean() == pytest.approx(flip(*pair), abs=1e-6)


def test_identical_pictures_have_no_error_and_black_against_white_much(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    assert flip(pair[0], pair[0]) == 0
    black = np.zeros((32, 32, 3), np.uint8)
    assert flip(black, black + np.uint8(255)) > 0.9
    assert not metrics()["flip"].higher_is_better


def test_pixels_outside_of_the_mask_do_not_matter(pair: tuple[np.ndarray, np.ndarray]) -> None:
    photo, rendering = pair
    mask = np.zeros(photo.shape[:2], bool)
    mask[30:90, 40:120] = True
    ruined = np.where(mask[..., None], rendering, 255 - photo).astype(np.uint8)
    assert flip(photo, rendering, mask) == flip(photo, ruined, mask)


def test_the_masked_mean_is_over_the_masks_pixels_alone(pair: tuple[np.ndarray, np.ndarray]) -> None:
    photo, rendering = pair
    mask = np.zeros(photo.shape[:2], bool)
    mask[30:90, 40:120] = True
    grey = np.uint8(128)
    shown = [np.where(mask[..., None], one, grey).astype(np.uint8) for one in pair]
    whole = flip_map(*shown)
    assert flip(photo, rendering, mask) == pytest.approx(float(whole[30:90, 40:120].mean()), abs=1e-6)
    assert flip(photo, rendering, mask) > 2 * whole.mean()


def test_an_empty_mask_and_another_shape_are_refused(pair: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="counts no pixel"):
        flip(*pair, np.zeros(pair[0].shape[:2], bool))
    with pytest.raises(ValueError, match="one shape"):
        flip(pair[0], pair[1][:-1])


def test_the_same_bits_from_several_threads_at_once(pair: tuple[np.ndarray, np.ndarray]) -> None:
    alone = flip_map(*pair)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: flip_map(*pair), range(8)))
    assert all(np.array_equal(alone, one) for one in together)
