"""Exact matching against a slow twin that looks at every pair, and its edges."""

from __future__ import annotations

import numpy as np
import pytest

from turntable.captures.matching import MAX_ANGLE, match_descriptors
from turntable.captures.sharpness import sharpness_of


def descriptors(count: int, seed: int) -> np.ndarray:
    """``uint8[N, 128]``, 512 long but for rounding, as COLMAP stores SIFT's."""
    values = np.random.default_rng(seed).exponential(1.0, (count, 128)) ** 2
    return (
        (512 * values / np.linalg.norm(values, axis=1, keepdims=True)).round().clip(0, 255).astype(np.uint8)
    )


def disturbed(values: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-9, 10, values.shape)
    return (values.astype(int) + noise).clip(0, 255).astype(np.uint8)


def slow(first: np.ndarray, second: np.ndarray, max_ratio: float) -> list[tuple[int, int]]:
    """The definition, feature by feature, in whole numbers up to the angle."""

    def candidates(a: np.ndarray, b: np.ndarray) -> dict[int, int]:
        found = {}
        for index, one in enumerate(a.astype(int)):
            products = [min(int(one @ other), 512 * 512) for other in b.astype(int)]
            order = sorted(range(len(b)), key=lambda j: (-products[j], j))
            angles = [float(np.arccos(products[j] / 512**2)) for j in order[:2]]
            if angles[0] < MAX_ANGLE and (len(angles) < 2 or angles[0] < max_ratio * angles[1]):
                found[index] = order[0]
        return found

    there, back = candidates(first, second), candidates(second, first)
    return [(i, j) for i, j in there.items() if back.get(j) == i]


@pytest.mark.parametrize("max_ratio", [0.8, 0.95])
def test_matches_are_those_of_the_slow_twin(max_ratio: float) -> None:
    common = descriptors(60, 0)
    first = np.concatenate([common, descriptors(40, 1)])
    # some features stand there twice, slightly changed: the ratio test must refuse those
    second = np.concatenate([disturbed(common[::-1], 2), disturbed(common[:15], 3), descriptors(30, 4)])
    expected = slow(first, second, max_ratio)
    assert [tuple(pair) for pair in match_descriptors(first, second, max_ratio).tolist()] == expected
    assert 30 < len(expected) < 60


def test_more_features_than_a_block_holds_match_as_well() -> None:
    first = descriptors(2500, 5)
    order = np.random.default_rng(6).permutation(2500)
    matches = match_descriptors(first, disturbed(first[order], 7), 0.8)
    assert len(matches) > 2000
    assert np.array_equal(order[matches[:, 1]], matches[:, 0])


@pytest.mark.parametrize(("first", "second"), [(0, 5), (5, 0), (0, 0)])
def test_no_features_have_no_matches(first: int, second: int) -> None:
    assert match_descriptors(descriptors(first, 0), descriptors(second, 1), 0.8).shape == (0, 2)


def test_a_blurred_picture_is_less_sharp_and_a_plain_one_not_at_all() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
    blurred = ((noise[:, :-1].astype(int) + noise[:, 1:]) // 2).astype(np.uint8)
    assert sharpness_of(noise) > 2 * sharpness_of(blurred) > 0
    assert sharpness_of(np.full((40, 60), 90, np.uint8)) == 0
    assert sharpness_of(np.zeros((2, 60), np.uint8)) == 0
