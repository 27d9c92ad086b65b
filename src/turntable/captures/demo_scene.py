"""What stands on the demo's turntable: a vase, a mosaic box with a die, a ball, a ring, a pawn and a duck.

Each thing is made of patches: a surface, how finely its mesh and its texture divide it, and a paint, a
function of the surface's own coordinates that gives linear RGB. Lengths are in radii of the turntable, whose
top is z = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .demo_shapes import Quad, Turned, about, ball, block, ring, rounded, spline

Paint = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Own coordinates ``[…, 3]``, u and v ``[…]`` to linear RGB ``[…, 3]``."""


@dataclass(frozen=True)
class Patch:
    """One surface with its paint.

    Args:
        surface: see :mod:`.demo_shapes`.
        mesh: how many cells its mesh has along u and v.
        texels: how many texels it has along u and v.
        paint: its colour.
        gloss: how much of the lamp its highlight mirrors; 0 is matt.
        sharpness: the highlight's exponent.
        casts: whether it throws shadows.
    """

    surface: Quad | Turned
    mesh: tuple[int, int]
    texels: tuple[int, int]
    paint: Paint
    gloss: float = 0.0
    sharpness: float = 40.0
    casts: bool = True


def _linear(code: str) -> np.ndarray:
    """The linear RGB of an sRGB colour written as six hexadecimal digits."""
    srgb = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


_LATTICE = np.random.default_rng(20).random((32, 32, 32)).astype(np.float32)


def _noise(p: np.ndarray, octaves: int = 3) -> np.ndarray:
    """Smooth noise in [0, 1] at ``[…, 3]``: octaves of interpolated lattice noise, each half as strong."""
    total, weight, norm = np.zeros(p.shape[:-1]), 1.0, 0.0
    for _ in range(octaves):
        cell = np.floor(p)
        f = p - cell
        f = f * f * (3 - 2 * f)
        i, j, k = (cell[..., axis].astype(np.int64) & 31 for axis in range(3))
        i1, j1, k1 = (i + 1) & 31, (j + 1) & 31, (k + 1) & 31
        fx, fy, fz = f[..., 0], f[..., 1], f[..., 2]
        low = _mix(
            _mix(_LATTICE[i, j, k], _LATTICE[i1, j, k], fx),
            _mix(_LATTICE[i, j1, k], _LATTICE[i1, j1, k], fx),
            fy,
        )
        high = (
            _mix(_LATTICE[i, j, k1], _LATTICE[i1, j, k1], fx),
            _mix(_LATTICE[i, j1, k1], _LATTICE[i1, j1, k1], fx),
        )
        total += weight * _mix(low, _mix(*high, fy), fz)
        norm += weight
        weight /= 2
        p = p * 2.03 + 7.1
    return total / norm


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + (b - a) * share


def _blend(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """From colour ``a`` to colour ``b`` by ``share[…]`` in [0, 1]."""
    return a + (b - a) * share[..., None]


def _step(x: np.ndarray, edge: float, width: float) -> np.ndarray:
    """0 below ``edge``, 1 above, smooth over ``width``."""
    return np.clip((x - edge) / width + 0.5, 0, 1)


def _wave(x: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 between 0 and 1: 0 at whole numbers."""
    return np.abs(2 * (x - np.floor(x + 0.5)))


def _wood(p: np.ndarray, light: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Boards along x: growth rings, pores and a shade for each board."""
    board = np.floor(p[..., 1] * 4.5 + 100)
    x = p[..., 0] + 3.7 * board
    bend = _noise(np.stack([x * 0.9, p[..., 1] * 3 + board, board], -1), 2)
    rings = _wave(p[..., 1] * 5 + 7 * bend)
    pores = _noise(np.stack([x * 7, p[..., 1] * 90, board], -1), 2)
    shade = _noise(np.stack([board * 1.7, board * 0.3, board], -1), 1)
    colour = _blend(light, dark, np.clip(0.55 * rings**1.5 + 0.5 * _step(pores, 0.6, 0.3), 0, 1))
    seam = _step(_wave(p[..., 1] * 4.5), 0.03, 0.04)
    return colour * ((0.72 + 0.55 * shade) * (0.35 + 0.65 * seam))[..., None]


def _turntable(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius = np.hypot(p[..., 0], p[..., 1])
    colour = _wood(p, _linear("c99561"), _linear("7a4a26"))
    degree = u * 360
    every_5, every_30 = _wave(degree / 5), _wave(degree / 30)
    tick = (every_5 < 0.13) & (radius > 0.925) & (radius < 0.965)
    tick |= (every_30 < 0.035) & (radius > 0.885) & (radius < 0.965)
    brass = tick | (np.abs(radius - 0.972) < 0.005) | (np.abs(radius - 0.872) < 0.004)
    side = p[..., 2] < -0.012
    ribs = 0.75 + 0.25 * _wave(u * 180)
    colour = np.where(side[..., None], _linear("3b2416") * ribs[..., None], colour)
    return np.where((brass & ~side)[..., None], _linear("f3d79a"), colour)


def _room(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A grey-blue table of felt that rises into a wall, darker upwards, with faint clouds."""
    height = np.clip((p[..., 2] + 0.12) / 4.0, 0, 1)
    radius = np.hypot(p[..., 0], p[..., 1])
    colour = _blend(_linear("8d9ca3"), _linear("40596b"), height**0.6)
    colour = _blend(colour, _linear("b3aca0"), np.exp(-((radius / 2.1) ** 2)))
    felt = _noise(p * np.array([16.0, 16.0, 16.0]), 3)
    clouds = _noise(p * 1.3 + 5, 3)
    return colour * (0.80 + 0.22 * clouds + 0.20 * (felt - 0.5))[..., None]


def _vase(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """White and cobalt: bands, zigzags, scales, dots and blossoms."""
    h = p[..., 2] / 0.86
    glaze = _noise(p * 14, 3)
    ink = np.zeros(u.shape)
    zigzag = np.abs((h - 0.12) / 0.05 - (2 * _wave(u * 18) - 1)) < 0.42
    ink = np.maximum(ink, zigzag & (np.abs(h - 0.12) < 0.075))
    across, up = u * 22, (h - 0.22) / 0.0356
    odd = np.floor(up) % 2
    scale = np.hypot((across + odd / 2) % 1 - 0.5, (up % 1) * 0.9)
    ink = np.maximum(ink, ((np.abs(scale - 0.48) < 0.1) | (scale < 0.17)) & (h > 0.22) & (h < 0.398))
    petals = u * 7 % 1 - 0.5
    x, y = petals * 1.5, (h - 0.545) / 0.135
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    flower = r < 0.42 + 0.24 * np.cos(6 * angle)
    ink = np.maximum(ink, (flower & (r > 0.16)) | (r < 0.09))
    vine = np.abs(y - 0.86 * np.sin(2 * np.pi * u * 7 + 1.4)) < 0.07
    ink = np.maximum(ink, vine & (r > 0.62) & (np.abs(h - 0.545) < 0.125))
    dots = np.hypot((u * 26) % 1 - 0.5, (h - 0.735) / 0.036) < 0.3
    ink = np.maximum(ink, dots)
    stripes = (_wave(u * 30 + (h - 0.85) * 9) < 0.45) & (h > 0.79) & (h < 0.92)
    ink = np.maximum(ink, stripes)
    for band in (0.03, 0.045, 0.205, 0.412, 0.68, 0.7, 0.772, 0.935):
        ink = np.maximum(ink, np.abs(h - band) < 0.0055)
    wash = _blend(_linear("1b3f9c"), _linear("4f7fd6"), np.clip(glaze * 1.5 - 0.3, 0, 1))
    return _blend(_linear("f2efe4") * (0.86 + 0.16 * glaze)[..., None], wash, ink)


_TILES = [
    _linear(code) for code in ("e4572e", "f3a712", "29335c", "669bbc", "a8c686", "f0e7d8", "7d2e68", "2a9d8f")
]


def _mosaic(side: int) -> Paint:
    """A framed panel of 9×9 tiles in a pattern of its own for each side of the box."""

    def paint(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        tiles = 9
        x, y = (u - 0.07) / 0.86 * tiles, (v - 0.07) / 0.86 * tiles
        column, row = np.clip(np.floor(x), 0, tiles - 1), np.clip(np.floor(y), 0, tiles - 1)
        i, j = np.abs(column - 4), np.abs(row - 4)
        pattern = [i + j, np.maximum(i, j), column + 2 * row, i * j + 1, (column - row) % 5 + i, i + 2 * j][
            side
        ]
        colour = np.array(_TILES)[(pattern.astype(np.int64) + 3 * side) % len(_TILES)]
        grain = _noise(np.stack([x * 2.2, y * 2.2, column * 5 + row * 3 + side], -1), 2)
        joint = (_wave(x) < 0.11) | (_wave(y) < 0.11)
        diamond = (_wave(x + 0.5) + _wave(y + 0.5) < 0.42) & ((column + row) % 2 == 0)
        colour = np.where(diamond[..., None], _linear("f6ecd2"), colour * (0.62 + 0.7 * grain)[..., None])
        colour = np.where(joint[..., None], _linear("3a2d26"), colour)
        frame = np.maximum(np.abs(u - 0.5), np.abs(v - 0.5)) > 0.43
        own = np.stack([u * 0.5, v * 0.5 + side, np.full_like(u, side)], -1)
        return np.where(frame[..., None], _wood(own, _linear("8a5a33"), _linear("4a2c17")), colour)

    return paint


_PIPS = {
    1: [(0, 0)], 2: [(-1, -1), (1, 1)], 3: [(-1, 1), (0, 0), (1, -1)],
    4: [(-1, -1), (-1, 1), (1, -1), (1, 1)],
    5: [(-1, -1), (-1, 1), (1, -1), (1, 1), (0, 0)], 6: [(-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 0), (1, 1)],
}  # fmt: skip


def _die(pips: int) -> Paint:
    def paint(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        veins = _wave(3 * _noise(np.stack([u * 2 + pips, v * 2, u * 0 + 3 * pips], -1), 3))
        colour = _blend(_linear("f4e9d6"), _linear("d96f4a"), 0.8 * np.clip(1 - 4 * veins, 0, 1))
        for x, y in _PIPS[pips]:
            far = np.hypot(u - 0.5 - 0.26 * x, v - 0.5 - 0.26 * y)
            colour = _blend(colour, _linear("8c1c13"), 1 - _step(far, 0.095, 0.02))
        edge = np.maximum(np.abs(u - 0.5), np.abs(v - 0.5))
        return _blend(colour, _linear("b4533a"), _step(edge, 0.475, 0.01))

    return paint


def _marble(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    warp = np.stack([_noise(p * 7 + shift, 3) for shift in (0.0, 11.0, 23.0)], -1)
    field = _noise(p * 5 + 5.5 * warp, 4)
    colour = _blend(_linear("0e5f66"), _linear("35b0a5"), np.clip(3 * field - 0.9, 0, 1))
    colour = _blend(colour, _linear("f7ead0"), _step(field, 0.60, 0.05))
    veins = _wave(field * 7)
    return _blend(colour, _linear("e0762f"), 1 - _step(veins, 0.13, 0.08))


def _rope(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    twist = u * 12 + v
    colour = _blend(_linear("f5efe0"), _linear("c8283c"), _step(_wave(twist), 0.5, 0.06))
    strands = 0.78 + 0.22 * _wave(u * 72 + v * 12)
    dots = np.hypot((u * 12 + v) % 1 - 0.5, 3 * (_wave(v * 6) - 0.5)) < 0.16
    colour = np.where(dots[..., None], _linear("f2b632"), colour)
    return colour * (strands * (0.8 + 0.35 * _noise(p * 40, 2)))[..., None]


def _pawn(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    grain = _noise(p * np.array([60.0, 60.0, 9.0]), 3)
    colour = _blend(_linear("2b1a12"), _linear("8a5232"), np.clip(1.7 * grain - 0.4, 0, 1))
    for height in (0.035, 0.075, 0.275):
        colour = _blend(colour, _linear("f0c969"), 1 - _step(np.abs(p[..., 2] - height), 0.010, 0.004))
    return colour


def _feathers(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    speckle = _noise(p * 9 + 3, 3)
    colour = _blend(_linear("ffcf24"), _linear("f08c14"), np.clip(2.6 * speckle - 0.9, 0, 1))
    return colour * (0.85 + 0.3 * _noise(p * 22, 2))[..., None]


def _plain(code: str, roughness: float = 0.2) -> Paint:
    def paint(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return _linear(code) * (1 - roughness + 2 * roughness * _noise(p * 6, 3))[..., None]

    return paint


def _duck(centre: tuple[float, float], angle: float) -> list[Patch]:
    """A bathtub duck of ellipsoids, looking along its own x axis."""
    upright = about("z", angle)

    def part(at: tuple[float, float, float], radii: tuple[float, float, float], tilt: float = 0.0) -> Turned:
        matrix = upright @ about("y", tilt) @ np.diag(radii)
        x, y, z = (upright * np.array(at)).sum(1)
        return Turned(ball(), (centre[0] + x, centre[1] + y, z), matrix)

    body = Patch(part((0, 0, 0.125), (0.20, 0.145, 0.125)), (40, 24), (256, 192), _feathers, 0.25, 60)
    tail = Patch(part((-0.175, 0, 0.185), (0.085, 0.06, 0.035), 0.7), (20, 14), (96, 64), _feathers, 0.25, 60)
    head = Patch(part((0.10, 0, 0.295), (0.105, 0.10, 0.10)), (32, 20), (192, 128), _feathers, 0.25, 60)
    beak = Patch(
        part((0.205, 0, 0.28), (0.062, 0.055, 0.02), -0.1), (24, 14), (64, 48), _plain("e4531b"), 0.25, 60
    )
    parts = [body, tail, head, beak]
    for side in (-1, 1):
        wing = part((-0.03, side * 0.128, 0.15), (0.105, 0.032, 0.065), 0.25)
        white = part((0.168, side * 0.056, 0.328), (0.026, 0.024, 0.03))
        pupil = part((0.182, side * 0.064, 0.331), (0.016, 0.016, 0.019))
        parts.append(Patch(wing, (24, 14), (96, 64), _plain("f59a18", 0.45), 0.25, 60))
        parts.append(Patch(white, (16, 10), (32, 24), _plain("fdfaf2", 0.02), 0.4, 120))
        parts.append(Patch(pupil, (16, 10), (32, 24), _plain("14110f", 0.02), 0.6, 120))
    return parts


def patches() -> list[Patch]:
    """The whole scene; the last patch is the room, which throws no shadow."""
    disc = rounded([(0.94, -0.12), (1.0, -0.07), (1.0, 0.0), (0.0, 0.0)], 0.012)
    vase = [(0, 0), (0.145, 0), (0.16, 0.015), (0.15, 0.05), (0.185, 0.13), (0.26, 0.30), (0.272, 0.43),
            (0.225, 0.57), (0.135, 0.68), (0.105, 0.745), (0.125, 0.81), (0.165, 0.852), (0.158, 0.86),
            (0.115, 0.80), (0.085, 0.74), (0.10, 0.66), (0.0, 0.60)]  # fmt: skip
    pawn = [(0, 0), (0.125, 0), (0.13, 0.03), (0.115, 0.055), (0.12, 0.075), (0.085, 0.10), (0.052, 0.16),
            (0.042, 0.25), (0.082, 0.268), (0.082, 0.285), (0.045, 0.30), (0.088, 0.35), (0.098, 0.395),
            (0.072, 0.45), (0.0, 0.475)]  # fmt: skip
    room = [
        (0.0, 5.2),
        (3.2, 5.0),
        (5.2, 3.4),
        (5.6, 1.6),
        (4.8, 0.25),
        (3.6, -0.1),
        (2.6, -0.12),
        (1.3, -0.12),
        (0, -0.12),
    ]
    found = [Patch(Turned(disc), (120, 32), (2048, 352), _turntable, 0.10, 30)]
    found.append(Patch(Turned(spline(vase), (-0.38, 0.30, 0.0)), (72, 96), (1024, 1024), _vase, 0.9, 180))
    for side, quad in enumerate(block((0.42, 0.33), 0.0, 0.44, 0.35)):
        found.append(Patch(quad, (12, 12), (288, 288), _mosaic(side), 0.12, 40))
    for pips, quad in zip((3, 2, 4, 5, 1, 6), block((0.42, 0.33), 0.44, 0.2, 1.0), strict=True):
        found.append(Patch(quad, (8, 8), (128, 128), _die(pips), 0.35, 80))
    found.append(Patch(Turned(ball(0.21), (-0.40, -0.39, 0.21)), (56, 36), (640, 320), _marble, 0.9, 260))
    found.append(Patch(Turned(ring(0.19, 0.075), (0.10, -0.57, 0.075)), (64, 28), (768, 320), _rope, 0.1, 30))
    found.append(Patch(Turned(spline(pawn), (0.04, -0.03, 0.0)), (40, 56), (256, 512), _pawn, 0.5, 90))
    found += _duck((0.60, -0.22), -0.75)
    found.append(Patch(Turned(spline(room, 320)), (72, 72), (1536, 768), _room, casts=False))
    return found
