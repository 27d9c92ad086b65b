"""The table of Gaussians and how it grows: what splat's training relies on and would hardly notice."""

from __future__ import annotations

import numpy as np
import pytest

from turntable.methods.splat import densify
from turntable.methods.splat.kernels import ACTIVITY, MEAN, OPACITY, QUATERNION, RECORD, ROWS, SCALE
from turntable.methods.splat.model import Model, morton


def model_of(count, seed=0):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(RECORD, count)).astype(np.float32)
    table[ACTIVITY] = generator.random(count)
    return Model.from_table(table)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 100])
def test_a_table_comes_back_and_is_a_copy(count):
    model = model_of(count)
    table = model.table()
    assert table.shape == (RECORD, count)
    assert np.array_equal(Model.from_table(table).table(), table)
    table[:], values = 7, model.values
    values[:] = 7
    model.row(OPACITY)[:] = 7
    assert not (model.table() == 7).any()


def test_adding_keeps_what_is_there_and_begins_without_moments():
    model = model_of(20)
    before, more = model.table(), np.random.default_rng(1).normal(size=(ROWS, 300)).astype(np.float32)
    model.add(more)
    assert model.count == 320
    assert np.array_equal(model.table()[:, :20], before)
    assert np.array_equal(model.values[:, 20:], more)
    assert not model.table()[ROWS:, 20:].any()


def test_removing_keeps_all_others_whole():
    model = model_of(50)
    before, gone = model.table(), np.random.default_rng(2).random(50) < 0.4
    model.remove(gone)
    assert model.count == 50 - gone.sum()
    stay = {column.tobytes() for column in before[:, ~gone].T}
    assert {column.tobytes() for column in model.table().T} == stay


@pytest.mark.parametrize("count", [1, 16, 37, 5000])
def test_sorting_moves_whole_gaussians_along_mortons_curve(count):
    model = model_of(count)
    before = model.table()
    model.sort()
    order = np.argsort(morton(before[MEAN]), kind="stable")
    assert np.array_equal(model.table(), before[:, order])


def test_mortons_curve_takes_the_bits_of_three_coordinates_in_turn():
    means = np.random.default_rng(1).normal(size=(3, 300)).astype(np.float32)
    low, high = np.percentile(means, (2, 98), axis=1, keepdims=True)
    cells = np.clip((means - low) / (high - low) * 1023, 0, 1023).astype(int)
    for cell, code in zip(cells.T.tolist(), morton(means).tolist(), strict=True):
        assert code == sum(
            (cell[axis] >> bit & 1) << (3 * bit + axis) for bit in range(10) for axis in range(3)
        )


def test_mortons_curve_of_gaussians_in_one_place():
    assert morton(np.ones((3, 5), np.float32)).tolist() == [0] * 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_mortons_curve_of_others_does_not_depend_on_what_is_not_finite(bad):
    means = np.random.default_rng(1).normal(size=(3, 300)).astype(np.float32)
    more = np.concatenate([means, np.full((3, 2), bad, np.float32)], axis=1)
    codes = morton(more)
    assert codes[:300].tolist() == morton(means).tolist()
    assert codes[300:].tolist() == [2**30 - 1 if bad == np.inf else 0] * 2
    assert morton(more[:, 300:]).max() < 2**30


def test_putting_forgets_the_moments_of_these_alone():
    model = model_of(40)
    before, at = model.table(), np.array([3, 17, 39])
    model.put(at, np.ones((ROWS, 3), np.float32))
    after = model.table()
    assert (after[:ROWS, at] == 1).all() and not after[ROWS:, at].any()
    others = np.setdiff1d(np.arange(40), at)
    assert np.array_equal(after[:, others], before[:, others])


def test_halves_lie_side_by_side_along_the_longest_axis():
    values = np.zeros((ROWS, 1), np.float32)
    values[QUATERNION.start] = 1
    values[SCALE, 0] = np.log([0.1, 0.5, 0.2])
    values[OPACITY] = 1.5
    one, other = densify.halves(values)
    assert np.allclose((one[MEAN] - other[MEAN])[:, 0], [0, 2 * densify.OFFSET * 0.5, 0])
    assert np.allclose((one[MEAN] + other[MEAN])[:, 0], 0, atol=1e-7)
    for half in (one, other):
        assert np.allclose(
            np.exp(half[SCALE, 0]), [0.1 * densify.THINNER, 0.5 * densify.SHORTER, 0.2 * densify.THINNER]
        )
        assert half[OPACITY] == values[OPACITY]


def test_cuts_take_the_places_of_the_dead_first_and_never_pass_the_target():
    model = model_of(200)
    table = model.table()
    table[OPACITY] = 1.0
    table[OPACITY, :30] = -9.0  # dead
    model = Model.from_table(table)
    densify.densify(model, "split", 190, np.random.default_rng(0))
    assert model.count == 190  # 170 alive, 20 cut; ten of the dead places were left, and closed
    assert (model.opacities() > densify.DEAD).all()
    assert not model.row(ACTIVITY).any()


def test_who_was_never_wanted_elsewhere_is_not_cut():
    table = model_of(100).table()
    table[OPACITY], table[ACTIVITY] = 1.0, 0.0
    table[ACTIVITY, 60:] = 1.0
    model = Model.from_table(table)
    densify.densify(model, "split", 110, np.random.default_rng(0))
    assert model.count == 110
    assert np.array_equal(model.values[:, :60], table[:ROWS, :60])
