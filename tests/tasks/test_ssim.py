"""SSIM: its definition, whole windows alone, and its mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import data as photos
from skimage.metrics import structural_similarity

from turntable.tasks.metrics.ssim import K1, K2, SIGMA, WINDOW, ssim, ssim_map

pictures = arrays(np.uint8, (13, 14, 3), elements=st.integers(0, 255))


def pair(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures that differ."""
    draw = np.random.default_rng(1)
    if kind == "random":
        return tuple(draw.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(2))  # type: ignore[return-value]
    photo = photos.astronaut()[100:260, 150:350] if kind == "photo" else np.full((40, 50, 3), 90, np.uint8)
    return photo, np.clip(photo + draw.normal(0, 12, photo.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["random", "photo", "flat"])
def test_agrees_with_scikit_images_map_cropped_to_whole_windows(kind: str) -> None:
    photo, rendering = pair(kind)
    _, full = structural_similarity(
        photo / 255, rendering / 255, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False,
        data_range=1, channel_axis=2, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(ssim_map(photo, rendering), full[5:-5, 5:-5], atol=1e-9)
    assert ssim(photo, rendering) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)


@pytest.mark.parametrize("kind", ["random", "photo", "flat"])
def test_agrees_with_torchmetrics_map_cropped_to_whole_windows(kind: str) -> None:
    torch = pytest.importorskip("torch", reason="torchmetrics needs torch, which is not installed")
    functional = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    photo, rendering = pair(kind)
    ours = [torch.from_numpy(one).permute(2, 0, 1)[None].double() / 255 for one in (rendering, photo)]
    with_border, whole = functional.structural_similarity_index_measure(
        *ours, sigma=SIGMA, data_range=1.0, k1=K1, k2=K2, return_full_image=True
    )
    assert ssim(photo, rendering) == pytest.approx(float(whole[..., 5:-5, 5:-5].mean()), abs=1e-4)
    assert abs(ssim(photo, rendering) - float(with_border)) > 1e-4  # the border it invents is averaged in


def test_one_window_by_hand() -> None:
    photo, rendering = (one[:WINDOW, :WINDOW] for one in pair("photo"))
    offsets = np.arange(WINDOW) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * SIGMA**2))
    window /= window.sum()
    expected = []
    for channel in range(3):
        x, y = photo[..., channel] / 255, rendering[..., channel] / 255
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        covariance = (window * (x - mx) * (y - my)).sum()
        c1, c2 = 0.01**2, 0.03**2
        expected.append((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(photo, rendering) == pytest.approx(np.mean(expected), abs=1e-10)


def test_a_mask_counts_the_whole_windows_with_their_centre_in_it() -> None:
    photo, rendering = pair("random")
    mask = np.zeros((40, 50), bool)
    mask[0:8, 0:50] = True  # rows 0 to 4 have no whole window
    patched = np.concatenate([rendering[:8], photo[8:]])
    assert ssim(photo, rendering, mask) == pytest.approx(ssim_map(photo, patched)[:3].mean(), abs=1e-12)


def test_what_a_rendering_shows_outside_of_the_mask_changes_nothing() -> None:
    photo, rendering = pair("random")
    mask = np.zeros((40, 50), bool)
    mask[10:30, 10:40] = True
    black = np.where(mask[..., None], rendering, np.uint8(0))
    assert ssim(photo, black, mask) == ssim(photo, rendering, mask)


def test_a_mask_in_the_border_alone_too_small_a_picture_and_another_shape_are_refused() -> None:
    photo = np.zeros((20, 20, 3), np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[:5] = True
    with pytest.raises(ValueError, match="centre of no whole SSIM window"):
        ssim(photo, photo, mask)
    with pytest.raises(ValueError, match=r"at least 11×11 pixels, not \(10, 20\)"):
        ssim(photo[:10], photo[:10])
    with pytest.raises(ValueError, match="one shape"):
        ssim(photo, photo[:15])


@settings(max_examples=40, deadline=None)
@given(pictures, pictures)
def test_symmetric_bounded_and_one_for_itself(a: np.ndarray, b: np.ndarray) -> None:
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    assert -1 <= ssim(a, b) <= 1 + 1e-9
    assert ssim(a, a) == pytest.approx(1, abs=1e-9)
