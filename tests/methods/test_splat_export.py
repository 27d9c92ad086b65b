"""What splat writes for other programs can be read back, and says what the model says."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from turntable.methods.splat import export, reference
from turntable.methods.splat.kernels import HARMONIC, MEAN, OPACITY, QUATERNION, ROWS, SCALE
from turntable.worker.ply import read_vertices


@pytest.fixture
def values() -> np.ndarray:
    generator = np.random.default_rng(0)
    model = np.zeros((ROWS, 50), np.float32)
    model[MEAN] = generator.normal(0, 3, (3, 50))
    model[SCALE] = generator.uniform(-5, 1, (3, 50))
    model[QUATERNION] = generator.normal(size=(4, 50)) * 3
    model[OPACITY] = generator.normal(0, 2, 50)
    model[HARMONIC] = generator.normal(0, 0.2, (48, 50))
    return model


def test_the_ply_has_the_standard_layout(values, tmp_path):
    export.write(tmp_path, values, 3, False)
    vertices = read_vertices(tmp_path / "point_cloud.ply")
    names = vertices.dtype.names or ()
    assert names[:9] == ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2")
    assert names[9:54] == tuple(f"f_rest_{i}" for i in range(45))
    assert names[54:] == ("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
    colour = values[HARMONIC].reshape(16, 3, -1)
    assert np.array_equal(vertices["y"], values[1])
    assert np.array_equal(vertices["f_dc_2"], colour[0, 2])
    assert np.array_equal(vertices["f_rest_0"], colour[1, 0])
    assert np.array_equal(vertices["f_rest_15"], colour[1, 1])  # channel by channel
    assert np.array_equal(vertices["f_rest_44"], colour[15, 2])
    assert np.array_equal(vertices["opacity"], values[OPACITY])
    assert np.array_equal(vertices["scale_1"], values[SCALE][1])
    lengths = sum(vertices[f"rot_{i}"].astype(float) ** 2 for i in range(4))
    assert np.allclose(lengths, 1, atol=1e-6)


def read_spz(data: bytes) -> dict[str, np.ndarray]:
    """Version 2, as its public description has it; a twin of the writer, written from the format's side."""
    raw = gzip.decompress(data)
    magic, version, count, degree, bits, flags, _ = struct.unpack("<IIIBBBB", raw[:16])
    assert (magic, version) == (0x5053474E, 2)
    at = 16
    parts = {}
    terms = (degree + 1) ** 2 - 1
    for name, width in (
        ("p", 9),
        ("alpha", 1),
        ("colour", 3),
        ("scale", 3),
        ("turn", 3),
        ("rest", 3 * terms),
    ):
        parts[name] = np.frombuffer(raw, np.uint8, count * width, at).reshape(count, width)
        at += count * width
    assert at == len(raw)
    p = parts["p"].reshape(count, 3, 3).astype(np.int64)
    fixed = p[..., 0] | p[..., 1] << 8 | p[..., 2] << 16
    xyz = parts["turn"] / 127.5 - 1
    return {
        "flags": np.array(flags),
        "position": np.where(fixed >= 1 << 23, fixed - (1 << 24), fixed) / 2.0**bits,
        "alpha": parts["alpha"][:, 0] / 255,
        "colour": (parts["colour"] / 255 - 0.5) / 0.15,
        "scale": parts["scale"] / 16 - 10,
        "quaternion": np.column_stack([np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1))), xyz]),
        "rest": (parts["rest"].reshape(count, terms, 3).astype(float) - 128) / 128,
    }


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_spz_reads_back(values, degree):
    back = read_spz(export.spz(values, degree, True))
    assert back["flags"] == 1
    assert np.abs(back["position"] * [1, -1, -1] - values[MEAN].T).max() < 1e-5
    assert np.abs(back["alpha"] - 1 / (1 + np.exp(-values[OPACITY]))).max() <= 0.51 / 255
    assert np.abs(back["colour"] - values[HARMONIC][:3].T).max() < 0.02
    assert np.abs(back["scale"] - values[SCALE].T).max() <= 0.5 / 16 + 1e-6
    # the scene is turned about x by 180°: so are the Gaussians' axes
    half_turn = np.diag([1.0, -1.0, -1.0])
    expected = half_turn @ reference.turn_of(values[QUATERNION] / np.linalg.norm(values[QUATERNION], axis=0))
    actual = reference.turn_of(back["quaternion"].T)
    spread = expected @ np.diag([1.0, 2.0, 3.0]) @ expected.transpose(0, 2, 1)
    apart = np.abs(actual @ np.diag([1.0, 2.0, 3.0]) @ actual.transpose(0, 2, 1) - spread)
    assert apart.mean() < 0.03
    assert apart.max() < 0.4  # w is not stored: near 0, its root turns a rounding of 1/255 into 0.1


def test_the_spz_shows_the_same_colours_from_every_side(values):
    back = read_spz(export.spz(values, 3, False))
    directions = np.random.default_rng(3).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    coefficients = values[HARMONIC].reshape(16, 3, -1).transpose(2, 0, 1)
    expected = np.einsum("nk,nkc->nc", reference.harmonics(directions)[:, 1:], coefficients[:, 1:])
    actual = np.einsum("nk,nkc->nc", reference.harmonics(directions * [1, -1, -1])[:, 1:], back["rest"])
    assert np.abs(actual - expected).max() < 0.25  # 15 coefficients, each rounded to 1/8 or 1/16
    assert np.corrcoef(actual.ravel(), expected.ravel())[0, 1] > 0.98


def test_what_is_not_finite_is_not_exported(values, tmp_path):
    values[MEAN, 3] = np.nan
    export.write(tmp_path, values, 3, False)
    assert len(read_vertices(tmp_path / "point_cloud.ply")) == 49
    assert np.isfinite(read_spz((tmp_path / "splat.spz").read_bytes())["position"]).all()
