"""The compiled kernels agree with their float64 twin, whose gradients agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from turntable.methods.splat import kernels, reference
from turntable.methods.splat.kernels import (
    ACTIVITY,
    FIRST,
    HARMONIC,
    HARMONIC_SECOND,
    MEAN,
    MOMENTS,
    OPACITY,
    QUATERNION,
    ROWS,
    SCALE,
    SECOND,
    Kernels,
    OptimiserStruct,
)
from turntable.methods.splat.model import Model, blocks
from turntable.worker.contract import Camera

SETS = kernels.available()


def view_of(width=37, height=29, degree=3, antialias=False, background=(0.2, 0.5, 0.9), dilation=0.3):
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    camera = Camera(
        width, height, 31.0, 33.0, width / 2 + 1.3, height / 2 - 0.7, rotation, np.array([0.1, -0.2, 3.0])
    )
    return kernels.view_struct(camera, 0.2, np.array(background), degree, antialias, dilation=dilation)


def scene(count=60, seed=0, spread=1.0, opaque=False):
    generator = np.random.default_rng(seed)
    model = np.zeros((ROWS, count))
    model[MEAN] = generator.uniform(-spread, spread, (3, count))
    model[SCALE] = np.log(generator.uniform(0.02, 0.35, (3, count)))
    model[QUATERNION] = generator.normal(size=(4, count))
    model[OPACITY] = generator.normal(4 if opaque else 0, 1.5, count)
    model[HARMONIC] = generator.normal(0, 0.15, (48, count))
    model[HARMONIC][:3] = generator.normal(0.5, 1.0, (3, count))
    return Model(model.astype(np.float32))


def twin_of(model):
    return model.values.astype(np.float64)


def full_gradient(twin, view, by_image):
    projection = reference.project(twin, view)
    return reference.project_back(
        twin, view, projection, reference.rasterise_back(projection, view, by_image)
    )


def close(actual, expected, tolerance):
    """Apart by at most ``tolerance`` of the greatest expected value."""
    scale = np.abs(expected).max()
    assert scale > 0
    assert np.abs(actual - expected).max() <= tolerance * scale


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("opaque", [False, True])
def test_rendering_agrees_with_the_twin(name, antialias, opaque):
    view, model = view_of(antialias=antialias), scene(150 if opaque else 60, opaque=opaque)
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view, with_depth=True)
    image, depth, opacity = reference.rasterise(reference.project(twin_of(model), view), view)
    close(fast.image(), image, 1e-4)
    fast_depth, fast_opacity = fast.depth_and_opacity()
    close(fast_opacity, opacity, 1e-4)
    close(np.where(opacity > 0.01, fast_depth, 0), np.where(opacity > 0.01, depth, 0), 1e-4)


@pytest.mark.parametrize("name", SETS)
def test_projection_and_colours_agree_with_the_twin(name):
    view, model = view_of(width=64, height=48), scene(200, spread=1.4)
    fast = Kernels(1, name)
    fast.forward(model.records, model.count, view)
    out = fast.projected()
    twin = reference.project(twin_of(model), view)
    drawn = out[:, 10] == 1
    assert drawn.sum() > 50
    assert not (drawn & ~twin.drawn).any()
    inverse = twin.inverse
    expected = np.column_stack(
        [
            twin.centre,
            inverse[:, 0, 0],
            inverse[:, 0, 1],
            inverse[:, 1, 1],
            twin.opacity,
            twin.colour,
            twin.depth,
        ]
    )
    for column in range(10):
        close(out[drawn, column], expected[drawn, column], 1e-4)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_agree_with_the_twin(name, degree, antialias):
    view, model = view_of(degree=degree, antialias=antialias), scene(60, seed=degree)
    by_image = np.random.default_rng(1).normal(size=(view.height, view.width, 3))
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view)
    fast.set_gradient(np.ascontiguousarray(by_image.transpose(2, 0, 1), np.float32))
    actual, expected = fast.gradients(model.records), full_gradient(twin_of(model), view, by_image)
    for rows in (MEAN, SCALE, QUATERNION, slice(OPACITY, OPACITY + 1), HARMONIC):
        close(actual[rows], expected[rows], 1e-4)


def tall_scene(count, thickness, seed):
    """Long Gaussians, upright and slanted, in an image several tiles tall; ``thickness`` in scene units."""
    generator = np.random.default_rng(seed)
    values = scene(count, seed).values
    values[MEAN.start + 1] *= 6
    values[SCALE] = np.log(generator.uniform(0.5 * thickness, thickness, (3, count)))
    longest = generator.integers(0, 3, count)
    values[SCALE.start + longest, np.arange(count)] = np.log(generator.uniform(0.5, 3, count))
    values[OPACITY] -= 1
    return Model(values.astype(np.float32))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("thickness", [0.3, 0.01], ids=["broad", "needles"])
def test_rendering_and_gradients_over_many_rows_and_batches_agree_with_the_twin(name, thickness):
    view, model = view_of(width=40, height=150), tall_scene(160, thickness, seed=3)
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view)
    assert fast.counts()[1] > 20 * 15  # more than a batch of 16 in each of at most 5 times 3 tiles
    twin = twin_of(model)
    close(fast.image(), reference.rasterise(reference.project(twin, view), view)[0], 1e-3)
    by_image = np.random.default_rng(1).normal(size=(view.height, view.width, 3))
    fast.set_gradient(np.ascontiguousarray(by_image.transpose(2, 0, 1), np.float32))
    actual, expected = fast.gradients(model.records), full_gradient(twin, view, by_image)
    shapes = (
        (MEAN, SCALE, QUATERNION) if thickness > 0.1 else ()
    )  # of needles, float32 knows no more than the order
    for rows in (*shapes, slice(OPACITY, OPACITY + 1), HARMONIC):
        close(actual[rows], expected[rows], 1e-3)


def test_gradients_behind_opaque_surfaces_agree_with_the_twin():
    view, model = view_of(), scene(200, seed=4, opaque=True)
    by_image = np.random.default_rng(1).normal(size=(view.height, view.width, 3))
    fast = Kernels(1)
    fast.forward(model.records, model.count, view)
    fast.set_gradient(np.ascontiguousarray(by_image.transpose(2, 0, 1), np.float32))
    actual, expected = fast.gradients(model.records), full_gradient(twin_of(model), view, by_image)
    for rows in (MEAN, SCALE, QUATERNION, slice(OPACITY, OPACITY + 1), HARMONIC):
        close(
            actual[rows], expected[rows], 2e-3
        )  # light of 1e-4 decides what counts: float32 decides it otherwise


@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_of_the_twin_agree_with_central_differences(antialias):
    view, twin = view_of(width=17, height=13, antialias=antialias), twin_of(scene(12, seed=3))
    by_image = np.random.default_rng(2).normal(size=(view.height, view.width, 3))

    def value(model):
        return (reference.rasterise(reference.project(model, view), view)[0] * by_image).sum()

    gradient = full_gradient(twin, view, by_image)
    generator = np.random.default_rng(9)
    step, checked = 1e-6, 0
    for row in range(ROWS):
        for column in generator.choice(twin.shape[1], 4, replace=False):
            ahead, behind = twin.copy(), twin.copy()
            ahead[row, column] += step
            behind[row, column] -= step
            numeric = (value(ahead) - value(behind)) / (2 * step)
            far, back = twin.copy(), twin.copy()
            far[row, column] += step / 2
            back[row, column] -= step / 2
            if abs(numeric - (value(far) - value(back)) / step) > 1e-5 * max(1, abs(numeric)):
                continue  # a pixel crossed alpha = 1/255 within the step, where the image jumps
            assert gradient[row, column] == pytest.approx(
                numeric, rel=1e-5, abs=1e-5 * np.abs(gradient[row]).max()
            )
            checked += 1
    assert checked > 0.9 * 4 * ROWS


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(40, 33), (16, 16), (1, 1), (5, 70)])
def test_loss_and_its_gradient_agree_with_the_twin(name, masked, size):
    width, height = size
    generator = np.random.default_rng(0)
    view, model = view_of(width, height), scene()
    photo = generator.integers(0, 256, (height, width, 3), np.uint8)
    mask = (generator.random((height, width)) > 0.4).astype(np.uint8) if masked else None
    if mask is not None:
        mask[0, 0] = 1
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view)
    image = fast.image().astype(np.float64)
    value = fast.loss(photo, mask, 0.2)
    expected, gradient = reference.loss(image, photo / 255.0, mask, 0.2)
    assert value == pytest.approx(expected, rel=1e-4)
    close(fast.image_gradient(), gradient.transpose(2, 0, 1), 1e-4)


def test_the_twins_loss_agrees_with_central_differences():
    generator = np.random.default_rng(0)
    image, photo = generator.random((9, 14, 3)), generator.random((9, 14, 3))
    mask = (generator.random((9, 14)) > 0.3).astype(np.uint8)
    _, gradient = reference.loss(image, photo, mask, 0.2)
    for _ in range(40):
        at = tuple(generator.integers(0, size) for size in image.shape)
        ahead, behind = image.copy(), image.copy()
        ahead[at] += 1e-6
        behind[at] -= 1e-6
        numeric = (
            reference.loss(ahead, photo, mask, 0.2)[0] - reference.loss(behind, photo, mask, 0.2)[0]
        ) / 2e-6
        assert gradient[at] == pytest.approx(numeric, rel=1e-4, abs=1e-9)
    assert (gradient[mask == 0] == 0).all()


def test_a_photo_that_is_all_masked_gives_no_loss_and_no_gradient():
    view, model = view_of(20, 20), scene()
    fast = Kernels(1)
    fast.forward(model.records, model.count, view)
    assert fast.loss(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8), 0.2) == 0
    assert not fast.image_gradient().any()


def optimiser_of(rates, step):
    optimiser = OptimiserStruct()
    optimiser.rate[:] = rates.tolist()
    optimiser.first, optimiser.second, optimiser.epsilon = 0.9, 0.999, 1e-30
    optimiser.unbias_first, optimiser.unbias_second = 1 / (1 - 0.9**step), 1 / (1 - 0.999**step)
    return optimiser


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_adams_step_agrees_with_the_twin_and_leaves_the_unseen_alone(name, degree):
    view, model = view_of(degree=degree), scene(80, spread=3.0)
    generator = np.random.default_rng(2)
    table = model.table()
    table[FIRST:SECOND] = generator.normal(size=(MOMENTS, 80))
    table[SECOND : HARMONIC_SECOND + 1] = generator.random((MOMENTS + 1, 80))
    model = Model.from_table(table)
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view)
    seen = fast.projected()[:, 10] == 1
    assert 5 < seen.sum() < 75
    fast.set_gradient(generator.normal(size=(3, view.height, view.width)).astype(np.float32))
    gradient = fast.gradients(model.records).astype(np.float64)
    rates = generator.uniform(0.001, 0.1, ROWS)
    optimiser = optimiser_of(rates, 7)
    optimiser.opacity_weight, optimiser.scale_weight = 0.7, 0.4
    opacity, scale = (
        1 / (1 + np.exp(-table[OPACITY].astype(np.float64))),
        np.exp(table[SCALE].astype(np.float64)),
    )
    gradient[OPACITY] += 0.7 / 80 * opacity * (1 - opacity)  # of weight times the mean opacity
    gradient[SCALE] += 0.4 / (3 * 80) * scale
    expected = reference.adam(table[:ACTIVITY].astype(np.float64), gradient, rates, 7, degree)
    fast.update(model.records, optimiser)
    after = model.table()
    assert np.allclose(after[:ACTIVITY, seen], expected[:, seen], rtol=2e-5, atol=1e-5)
    assert np.array_equal(after[:, ~seen], table[:, ~seen])
    moved = np.abs(gradient[MEAN]).max(0) > 0
    assert np.array_equal(after[ACTIVITY] > 0, moved & seen)


@pytest.mark.parametrize("name", SETS)
def test_bits_do_not_depend_on_threads_or_on_chance(name):
    view, model = view_of(200, 150), scene(3000, seed=8, spread=1.5)
    photo = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)

    def bits(threads):
        fast = Kernels(threads, name)
        fast.forward(model.records, model.count, view)
        return fast.image().tobytes(), fast.loss(photo, None, 0.2), fast.gradients(model.records).tobytes()

    one = bits(1)
    for threads in (1, 2, 3, 7, 2):
        assert bits(threads) == one


def test_builds_for_different_instruction_sets_agree():
    view, model = view_of(64, 48), scene(300)
    images = []
    for name in SETS:
        fast = Kernels(1, name)
        fast.forward(model.records, model.count, view)
        images.append(fast.image())
    for image in images[1:]:
        close(image, images[0], 1e-5)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("antialias", [False, True])
def test_wider_dilation_agrees_with_the_twin(name, antialias):
    view, model = view_of(antialias=antialias, dilation=4.8), scene(60)
    by_image = np.random.default_rng(1).normal(size=(view.height, view.width, 3))
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view)
    close(fast.image(), reference.rasterise(reference.project(twin_of(model), view), view)[0], 1e-4)
    fast.set_gradient(np.ascontiguousarray(by_image.transpose(2, 0, 1), np.float32))
    actual, expected = fast.gradients(model.records), full_gradient(twin_of(model), view, by_image)
    for rows in (MEAN, SCALE, QUATERNION, slice(OPACITY, OPACITY + 1), HARMONIC):
        close(actual[rows], expected[rows], 1e-4)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("length", [100, 1000, 4000])
def test_needles_keep_their_shape(name, antialias, length):
    """xx yy - xy² in float32 once lost all its digits: shapes were wrong, and differed between builds."""
    view, model = view_of(antialias=antialias), scene(12, seed=length)
    values = model.values
    values[SCALE] = np.log([[length / 12], [0.02], [0.02]])
    model = Model(values)
    fast = Kernels(1, name)
    fast.forward(model.records, model.count, view)
    out, twin = fast.projected(), reference.project(twin_of(model), view)
    drawn = out[:, 10] == 1
    assert drawn.any()
    for column, (row, other) in enumerate(((0, 0), (0, 1), (1, 1)), 2):
        close(out[drawn, column], twin.inverse[drawn, row, other], 2e-3)
    assert fast.image().max() < 5 and fast.image().min() >= 0
    assert np.isfinite(fast.gradients(model.records)).all()


HOSTILE = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1e30,
    -1e30,
    3.4e38,
    -3.4e38,
    1e-38,
    88.0,
    -88.0,
    200.0,
    -200.0,
]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(12))
def test_hostile_numbers_neither_crash_nor_spread(name, seed):
    generator = np.random.default_rng(seed)
    width, height = [(1, 1), (17, 16), (33, 5), (64, 64)][seed % 4]
    view, model = view_of(width, height, antialias=bool(seed % 2)), scene(100, seed=seed)
    spoilt, values = generator.choice(100, 60, replace=False), model.values
    for column in spoilt:
        rows = generator.choice(ROWS, generator.integers(1, 6), replace=False)
        values[rows, column] = generator.choice(HOSTILE, len(rows))
    model = Model(values)
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view, with_depth=True)
    photo = generator.integers(0, 256, (height, width, 3), np.uint8)
    fast.loss(photo, None, 0.2)
    assert np.isfinite(fast.gradients(model.records)).all()
    before = np.isfinite(model.table())
    fast.update(model.records, optimiser_of(np.full(ROWS, 0.01), 1))
    assert np.isfinite(model.table())[before].all()


@pytest.mark.parametrize("name", SETS)
def test_an_empty_scene_shows_the_background(name):
    fast = Kernels(2, name)
    fast.forward(blocks(0), 0, view_of(20, 10), with_depth=True)
    assert np.allclose(fast.image(), [0.2, 0.5, 0.9])
    assert not fast.depth_and_opacity()[0].any()


@pytest.mark.parametrize("name", SETS)
def test_everything_behind_the_camera_is_not_drawn(name):
    view, model = view_of(), scene(40)
    view.translation[2] = -50.0
    fast = Kernels(2, name)
    fast.forward(model.records, model.count, view)
    assert fast.counts() == (0, 0)


@pytest.mark.parametrize("name", SETS)
def test_one_gaussian_may_cover_everything(name):
    view, model = view_of(100, 80), scene(1)
    values = model.values
    values[SCALE, 0], values[MEAN, 0] = np.log(50.0), 0
    model = Model(values)
    fast = Kernels(2, name)
    fast.forward(model.records, 1, view)
    assert fast.counts()[0] == 1 and fast.counts()[1] >= 2 * 7  # the largest tiles, of AVX-512, are 16×64 px
    close(fast.image(), reference.rasterise(reference.project(twin_of(model), view), view)[0], 1e-4)


def test_an_instruction_set_that_is_not_there_is_refused():
    with pytest.raises(RuntimeError, match="instruction_set"):
        Kernels(1, "abacus")
