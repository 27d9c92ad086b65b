"""Other metrics, sizes and quantisations: their values against plain twins, and what they do to an order."""

from __future__ import annotations

import io
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photos

from turntable.tasks.metrics.psnr import IDENTICAL_DB, psnr
from turntable.tasks.metrics.ssim import ssim
from turntable.tasks.sensitivity import VARIANTS, Shift, Swap, sensitivity, variants
from turntable.tasks.statistics import Sample, rank


def pair(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A photo and a noisy rendering of it."""
    rng = np.random.default_rng(seed)
    photo = np.asarray(Image.fromarray(photos.astronaut()).resize((width, height)))
    return photo, np.clip(photo + rng.normal(0, 12, photo.shape), 0, 255).astype(np.uint8)


def blocks(picture: np.ndarray, mask: np.ndarray, side: int) -> list[tuple[np.ndarray, int]]:
    """The twin of scaling down: mean colour and count of the counted pixels of each block that has any."""
    found = []
    for top in range(0, picture.shape[0], side):
        for left in range(0, picture.shape[1], side):
            counted = picture[top : top + side, left : left + side][
                mask[top : top + side, left : left + side]
            ]
            if len(counted):
                found.append((counted.astype(np.float64).mean(0), len(counted)))
    return found


def psnr_of_blocks(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray, side: int) -> float:
    squares, weights = [], []
    for (one, count), (other, _) in zip(
        blocks(photo, mask, side), blocks(rendering, mask, side), strict=True
    ):
        squares.append(np.mean((one - other) ** 2))
        weights.append(count)
    return -10 * math.log10(np.average(squares, weights=weights) / 255**2)


def masks(height: int, width: int) -> list[np.ndarray | None]:
    half = np.zeros((height, width), bool)
    half[:, : width // 2] = True
    return [None, half, np.random.default_rng(5).random((height, width)) < 0.4]


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize(("height", "width"), [(40, 60), (41, 63), (43, 61), (5, 3), (1, 7)])
def test_half_and_quarter_size_are_means_of_the_counted_pixels(height: int, width: int, kind: int) -> None:
    photo, rendering = pair(height, width)
    mask = masks(height, width)[kind]
    counted = np.ones((height, width), bool) if mask is None else mask
    found = variants(photo, rendering, mask)
    assert found["psnr-half"] == pytest.approx(psnr_of_blocks(photo, rendering, counted, 2), abs=1e-5)
    assert found["psnr-quarter"] == pytest.approx(psnr_of_blocks(photo, rendering, counted, 4), abs=1e-5)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_other_variants_by_plain_twins(kind: int) -> None:
    photo, rendering = pair(48, 64)
    mask = masks(48, 64)[kind]
    found = variants(photo, rendering, mask)
    counted = np.ones((48, 64), bool) if mask is None else mask

    levels = [np.rint(one * (63 / 255)) / 63 for one in (photo, rendering)]
    squares = np.square(levels[0] - levels[1])[counted]
    assert found["psnr-6bit"] == pytest.approx(-10 * math.log10(squares.mean()), abs=1e-6)

    luma = (photo.astype(float) - rendering) @ [0.299, 0.587, 0.114]
    assert found["psnr-luma"] == pytest.approx(
        -10 * math.log10(np.square(luma)[counted].mean() / 255**2), abs=1e-5
    )

    inner = None if mask is None else mask[4:44, 6:58]
    assert found["psnr-cropped"] == pytest.approx(psnr(photo[4:44, 6:58], rendering[4:44, 6:58], inner))

    with io.BytesIO() as file:
        Image.fromarray(rendering).save(file, "JPEG", quality=90)
        copy = np.asarray(Image.open(file).convert("RGB"))
    assert found["psnr-jpeg90"] == pytest.approx(psnr(photo, copy, mask))


def test_ssim_at_half_size_is_ssim_of_the_scaled_pictures() -> None:
    photo, rendering = pair(48, 64)
    halves = [
        np.rint(one.reshape(24, 2, 32, 2, 3).mean((1, 3))).astype(np.uint8) for one in (photo, rendering)
    ]
    assert variants(photo, rendering)["ssim-half"] == pytest.approx(ssim(halves[0], halves[1]), abs=1e-12)
    mask = np.zeros((48, 64), bool)
    mask[:, :32] = True
    elsewhere = rendering.copy()
    elsewhere[:, 32:] = 0
    found = [variants(photo, one, mask)["ssim-half"] for one in (rendering, elsewhere)]
    assert found[0] == found[1] < 1


@given(st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_any_size_has_values_and_a_perfect_rendering_the_best(height: int, width: int, masked: bool) -> None:
    photo, rendering = pair(height, width)
    mask = None
    if masked:
        mask = np.zeros((height, width), bool)
        mask[height // 2, width // 2] = True
    found, perfect = variants(photo, rendering, mask), variants(photo, photo, mask)
    assert list(found) == list(perfect) == [name for name in VARIANTS if name in found]
    assert set(VARIANTS) - set(found) <= {"ssim-half", "psnr-cropped"}
    assert masked or ("ssim-half" in found) == (min(height, width) > 20)
    for name in found:
        assert math.isfinite(found[name])
        if name != "psnr-jpeg90":
            assert perfect[name] == (1 if name == "ssim-half" else IDENTICAL_DB)
            assert found[name] <= perfect[name]


def test_what_lies_outside_of_a_mask_changes_nothing_but_the_lossy_copy() -> None:
    photo, rendering = pair(48, 64)
    mask = np.zeros((48, 64), bool)
    mask[10:40, 8:50] = True
    elsewhere = np.where(mask[..., None], rendering, 255 - rendering)
    one, other = variants(photo, rendering, mask), variants(photo, elsewhere, mask)
    assert {name for name in one if one[name] != other[name]} == {"psnr-jpeg90"}


def test_a_mask_of_the_border_alone_has_no_cropped_value() -> None:
    photo, rendering = pair(48, 64)
    mask = np.zeros((48, 64), bool)
    mask[:3] = True
    assert "psnr-cropped" not in variants(photo, rendering, mask)


def test_other_shapes_and_empty_masks_are_refused() -> None:
    photo, rendering = pair(48, 64)
    with pytest.raises(ValueError, match="one shape"):
        variants(photo, rendering[1:])
    with pytest.raises(ValueError, match="counts no pixel"):
        variants(photo, rendering, np.zeros((48, 64), bool))


def test_a_view_of_540_by_960_costs_little() -> None:
    """50 ms where it was written; five times as much is a mistake, not a slow machine."""
    photo, rendering = pair(540, 960)
    variants(photo, rendering)
    start = time.process_time()
    variants(photo, rendering)
    assert time.process_time() - start < 0.25


def by_name(shifts: list[Shift]) -> dict[str, Shift]:
    return {shift.variant.name: shift for shift in shifts}


STEADY = np.linspace(0, 0.1, 12)[None]
PSNR = [
    Sample("a", 30 + STEADY),
    Sample("b", 29.99 + STEADY + np.where(np.arange(12) == 3, -20.0, 1.8)[None]),  # one bad view
    Sample("c", 20 + STEADY[:, ::-1]),
    Sample("dead", np.empty((0, 12)), failed=1),
]


def test_swaps_are_told_with_whether_the_data_had_decided_them() -> None:
    ranking = rank(PSNR, True)
    assert ranking.order == ("a", "b", "c", "dead") and not ranking.pair("a", "b").decided
    means = {
        "psnr-half": {"a": 31.0, "b": 30.0, "c": 21.0},
        "psnr-jpeg90": {"a": 25.0, "b": 26.0, "c": 25.5},
        "psnr-6bit": {"a": 29.0, "b": 29.0, "c": 29.0},
        "ssim-half": {"a": 0.9, "c": 0.95},
    }
    found = by_name(sensitivity({"psnr": PSNR}, ranking, means))
    assert (found["psnr-half"].order, found["psnr-half"].swaps) == (("a", "b", "c"), ())
    assert found["psnr-jpeg90"].order == ("b", "c", "a")
    assert found["psnr-jpeg90"].swaps == (Swap("a", "b", False), Swap("a", "c", True))
    assert (found["psnr-6bit"].order, found["psnr-6bit"].swaps) == (("a", "b", "c"), ())
    assert found["ssim-half"].order == ("c", "a") and found["ssim-half"].means == {"a": 0.9, "c": 0.95}


def test_other_metrics_and_other_sums_of_the_same_scores() -> None:
    flip = [
        Sample("a", np.full((1, 12), 0.2)),
        Sample("b", np.full((1, 12), 0.1)),
        Sample("c", np.full((1, 12), 0.5)),
    ]
    found = by_name(sensitivity({"psnr": PSNR, "flip": flip}, rank(PSNR, True), {}))
    assert list(found) == ["flip", "psnr-median", "psnr-worst", "psnr-pooled"]
    assert found["flip"].order == ("b", "a", "c")  # lower is better
    assert found["psnr-median"].order == ("b", "a", "c")
    assert found["psnr-worst"].order == ("a", "c", "b")
    assert found["psnr-worst"].means["b"] == pytest.approx(9.99 + STEADY[0, 3])
    errors = 10 ** (-PSNR[1].scores / 10)
    assert found["psnr-pooled"].means["b"] == pytest.approx(-10 * math.log10(errors.mean()))


def test_where_lower_is_better_the_worst_view_is_the_largest() -> None:
    flip = [Sample("a", np.array([[0.1, 0.1, 0.9]])), Sample("b", np.array([[0.4, 0.4, 0.4]]))]
    found = by_name(sensitivity({"flip": flip}, rank(flip, False), {}))
    assert "flip-pooled" not in found
    assert found["flip-worst"].means == {"a": 0.9, "b": 0.4}
    assert found["flip-worst"].swaps == (Swap("a", "b", False),)
    assert found["flip-median"].order == ("a", "b")


def test_several_runs_are_summed_up_one_by_one() -> None:
    two = [Sample("a", np.array([[1.0, 9.0, 9.0], [9.0, 9.0, 1.0]]))]
    assert by_name(sensitivity({"psnr": two}, rank(two, True), {}))["psnr-worst"].means == {"a": 1.0}


def test_every_variant_is_described_once_under_its_name() -> None:
    assert all(
        name == variant.name and variant.definition.endswith(".") for name, variant in VARIANTS.items()
    )
