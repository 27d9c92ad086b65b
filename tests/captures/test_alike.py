"""Whether two pictures are one photo: copies are, neighbours are not, on real photos and made ones."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from captures.copies import BRIGHTENED, COPIES, brightened, jpeg, resized, shifted
from turntable.captures.alike import ALIKE_BELOW, PROBE_PX, difference, fingerprint, pairs_alike

EVERY_COPY = {**COPIES, **BRIGHTENED}


def texture(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """A picture with structure of every size and little colour, as photos have: ``uint8[H, W, 3]``."""
    draw = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for size in (5, 15, 40, 90):
        coarse = draw.uniform(0, 255, (size, size, 1)) * 0.8 + draw.uniform(0, 255, (size, size, 3)) * 0.2
        fine = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        picture += np.asarray(fine) / 4
    return picture.clip(0, 255).astype(np.uint8)


def photos(folder: Path, long_side: int) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted([*folder.rglob("*.jpg"), *folder.glob("*.JPG"), *folder.glob("*.png")]):
        with Image.open(path) as picture:
            picture.thumbnail((long_side, long_side))
            found[path.name] = np.asarray(picture.convert("RGB"))
    return found


@pytest.mark.parametrize("copy", EVERY_COPY)
def test_a_copy_is_the_same_photo(copy: str) -> None:
    for seed in range(5):
        photo = texture(seed)
        assert difference(fingerprint(photo), fingerprint(EVERY_COPY[copy](photo))) < ALIKE_BELOW


@pytest.mark.parametrize("name", ["fox", "temple", "banana"])
def test_copies_of_real_photos_are_told_from_their_neighbours(data: Path, name: str) -> None:
    known = {name: fingerprint(image) for name, image in photos(data / name, 400).items()}
    apart = {pair: difference(known[pair[0]], known[pair[1]]) for pair in combinations(known, 2)}
    # Middlebury's sparse ring of the temple holds one view twice: both have the same camera.
    assert [pair for pair, found in apart.items() if found < 4 * ALIKE_BELOW] == (
        [("templeSR0001.png", "templeSR0011.png")] if name == "temple" else []
    )
    for image in list(photos(data / name, 400).values())[::6]:
        for copy in EVERY_COPY.values():
            assert difference(fingerprint(image), fingerprint(copy(image))) < ALIKE_BELOW / 2


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6), st.floats(0.8, 1.15), st.floats(-15, 15), st.integers(50, 95), st.floats(0.7, 1.0)
)
def test_any_copy_is_the_same_photo_and_any_other_isnt(
    seed: int, gain: float, added: float, quality: int, scale: float
) -> None:
    photo = (texture(seed) * 0.7 + 30).astype(np.uint8)  # no change of brightness clips it
    copy = fingerprint(jpeg(resized(brightened(photo, gain, added), scale), quality))
    assert difference(fingerprint(photo), copy) < ALIKE_BELOW
    assert difference(fingerprint(texture(seed + 1)), copy) > 5 * ALIKE_BELOW


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.7, 1.4))
def test_the_difference_is_the_same_in_both_directions(seed: int, pixels: int, gain: float) -> None:
    one, other = fingerprint(texture(seed)), fingerprint(brightened(shifted(texture(seed), pixels), gain))
    assert difference(one, other) == pytest.approx(difference(other, one), rel=1e-3)


@pytest.mark.parametrize(("side", "contrast"), [(16, 60), (24, 40), (40, 30)])
def test_a_small_object_that_turns_before_a_still_camera_is_no_copy(side: int, contrast: int) -> None:
    striped = np.where(np.arange(side)[:, None] // 8 % 2, 128 + contrast, 128 - contrast).astype(np.uint8)
    still = texture(1)
    still[100 : 100 + side, 150 : 150 + side] = striped[:, :, None]
    turned = texture(1)
    turned[100 : 100 + side, 150 : 150 + side] = striped.T[:, :, None]
    assert (
        np.square((still / 1.0 - turned)[..., 0]).mean() < 100
    )  # all in all they are as near as a copy may be
    assert difference(fingerprint(still), fingerprint(turned)) > ALIKE_BELOW
    assert pairs_alike([fingerprint(turned)], [fingerprint(still)]) == []


@pytest.mark.parametrize("copy", [*BRIGHTENED, "gamma"])
def test_a_copy_of_a_photo_of_which_only_a_part_is_sharp_is_the_same_photo(copy: str) -> None:
    photo = texture(3)
    with Image.fromarray(photo) as picture:
        blurred = np.array(picture.filter(ImageFilter.GaussianBlur(12)))
    blurred[80:160, 110:210] = photo[80:160, 110:210]
    changed = (
        EVERY_COPY[copy](blurred)
        if copy in EVERY_COPY
        else (255 * (blurred / 255) ** 1.2).round().astype(np.uint8)
    )
    assert difference(fingerprint(blurred), fingerprint(changed)) < ALIKE_BELOW


def test_the_more_a_picture_has_moved_the_larger_the_difference() -> None:
    photo = texture(3, width=4 * PROBE_PX, height=3 * PROBE_PX)
    apart = [difference(fingerprint(photo), fingerprint(shifted(photo, pixels))) for pixels in (0, 1, 4, 16)]
    assert apart == sorted(apart) and apart[0] == 0
    assert apart[1] < ALIKE_BELOW < apart[3]


def test_what_cant_be_told_apart_isnt_called_the_same() -> None:
    photo = texture(0)
    grey = np.full_like(photo, 128)
    hazy = (128 + (photo - 128.0) / 200).round().astype(np.uint8)
    tiny = texture(0, width=40, height=30)
    for one, other in (
        (photo, grey),  # no texture at all
        (hazy, hazy + 1),  # next to none
        (tiny, tiny + 1),  # too few pixels
        (photo, photo[:, :120]),  # a detail of it
        (photo, 255 - photo),  # its negative
        (photo, (photo / 4).astype(np.uint8)),  # another exposure
    ):
        assert difference(fingerprint(one), fingerprint(other)) == np.inf


def test_under_masks_only_what_counts_is_compared() -> None:
    """A figure on a turntable turns, and what stands behind it doesn't."""
    room, figure, turned = (texture(seed, 256, 192) for seed in range(3))
    mask = np.zeros((192, 256), np.uint8)
    mask[60:130, 90:165] = 255
    one, other = (np.where(mask[..., None] > 0, front, room) for front in (figure, turned))
    assert difference(fingerprint(one, mask), fingerprint(other, mask)) > 10 * ALIKE_BELOW
    assert difference(fingerprint(one, mask), fingerprint(jpeg(one, 60), mask)) < ALIKE_BELOW / 2
    moved = np.where(mask[..., None] > 0, figure, texture(9, 256, 192))
    assert difference(fingerprint(one, mask), fingerprint(moved, mask)) < ALIKE_BELOW / 2
    assert difference(fingerprint(one, mask), fingerprint(moved, mask * 0)) == np.inf


def test_pairs_are_found_among_many_the_most_alike_first() -> None:
    many = [texture(seed) for seed in range(40)]
    wanted = [jpeg(many[7], 30), many[21], texture(99)]
    others = [*many, jpeg(wanted[0], 90)]  # nearer to what is wanted than the photo that both come from
    found = pairs_alike([fingerprint(image) for image in wanted], [fingerprint(image) for image in others])
    assert [pair[:2] for pair in found] == [(0, 40), (0, 7), (1, 21)]
    assert found[2][2] == 0 < found[0][2] < found[1][2]
    assert pairs_alike([], [fingerprint(many[0])]) == pairs_alike([fingerprint(many[0])], []) == []


def test_identical_pictures_are_found_where_there_is_nothing_to_compare() -> None:
    """A black frame has no texture, and more copies than are looked at closely."""
    black = [fingerprint(np.zeros((20, 30, 3), np.uint8)) for _ in range(12)]
    other_shape = fingerprint(np.zeros((30, 20, 3), np.uint8))
    assert [pair[1] for pair in pairs_alike(black[:1], [*black, other_shape])] == list(range(12))
