"""PSNR: its definition, its mask, and what identical pictures count as."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import data as photos
from skimage.metrics import peak_signal_noise_ratio

from turntable.tasks.metrics import metrics
from turntable.tasks.metrics.psnr import IDENTICAL_DB, psnr

pictures = arrays(np.uint8, (5, 7, 3), elements=st.integers(0, 255))


def noisy(picture: np.ndarray, seed: int = 0, amount: float = 20.0) -> np.ndarray:
    """``picture`` with Gaussian noise."""
    noise = np.random.default_rng(seed).normal(0, amount, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_agrees_with_scikit_image_on_a_photo() -> None:
    photo = photos.astronaut()
    rendering = noisy(photo)
    assert psnr(photo, rendering) == pytest.approx(
        peak_signal_noise_ratio(photo, rendering, data_range=255), abs=1e-4
    )


def test_agrees_with_torchmetrics_on_a_photo() -> None:
    torch = pytest.importorskip("torch", reason="torchmetrics needs torch, which is not installed")
    functional = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    photo = photos.chelsea()
    rendering = noisy(photo)
    as_tensor = [torch.from_numpy(one).permute(2, 0, 1)[None].double() / 255 for one in (photo, rendering)]
    theirs = float(functional.peak_signal_noise_ratio(as_tensor[1], as_tensor[0], data_range=1.0))
    assert psnr(photo, rendering) == pytest.approx(theirs, abs=1e-4)


def test_a_difference_of_one_step_everywhere_is_20_log10_255() -> None:
    assert psnr(np.full((4, 4, 3), 7, np.uint8), np.full((4, 4, 3), 8, np.uint8)) == pytest.approx(
        20 * math.log10(255)
    )


def test_a_mask_leaves_its_pixels_alone_and_is_not_inflated_by_the_rest() -> None:
    """The regression: multiplying both by the mask and averaging over all pixels gave 32.33 dB for 26.31."""
    error = np.where(np.arange(300) < 96, 13, 12).reshape(10, 10, 3)  # mean square 152: 26.31 dB
    photo = np.full((20, 20, 3), 100, np.uint8)
    rendering = np.full((20, 20, 3), 255, np.uint8)  # outside of the mask: anything
    rendering[:10, :10] = 100 + error
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    black_elsewhere = (one * mask[..., None] for one in (photo, rendering))
    assert psnr(*black_elsewhere) == pytest.approx(32.33, abs=0.005)
    assert psnr(photo, rendering, mask) == pytest.approx(26.31, abs=0.005)


def test_a_mask_by_hand() -> None:
    photo = np.zeros((1, 3, 3), np.uint8)
    rendering = np.array([[[3, 0, 0], [0, 4, 0], [200, 200, 200]]], np.uint8)
    mask = np.array([[True, True, False]])
    assert psnr(photo, rendering, mask) == pytest.approx(-10 * math.log10((9 + 16) / 6 / 255**2))


def test_identical_pictures_have_a_number_that_json_can_hold_and_no_other_pair_reaches() -> None:
    photo = np.zeros((500, 500, 3), np.uint8)
    almost = photo.copy()
    almost[0, 0, 0] = 1
    assert psnr(photo, photo) == IDENTICAL_DB
    assert psnr(photo, almost) < IDENTICAL_DB
    assert json.loads(json.dumps(psnr(photo, photo), allow_nan=False)) == IDENTICAL_DB
    assert "150 dB" in metrics()["psnr"].definition


def test_an_empty_mask_and_another_shape_are_refused() -> None:
    photo = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="counts no pixel"):
        psnr(photo, photo, np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="one shape"):
        psnr(photo, np.zeros((4, 5, 3), np.uint8))


@given(pictures, pictures)
def test_symmetric_bounded_and_best_for_itself(a: np.ndarray, b: np.ndarray) -> None:
    assert psnr(a, b) == psnr(b, a)
    assert 0 <= psnr(a, b) <= psnr(a, a) == IDENTICAL_DB


@given(pictures, pictures)
def test_a_full_mask_changes_nothing(a: np.ndarray, b: np.ndarray) -> None:
    assert psnr(a, b, np.ones((5, 7), bool)) == psnr(a, b)
