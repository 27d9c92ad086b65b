"""Light in the demo's scene: one large lamp, a sky, and what both leave on every texel.

All but the highlights is the same from everywhere, so it is worked out once, per texel: the lamp through
shadow maps from points spread over it, the sky through shadow maps from all over the upper half.
Notation: directions are unit vectors from the surface to the light; radiance is linear RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .demo_raster import rasterise
from .demo_scene import Patch
from .demo_shapes import turned, unit

LAMP = unit(np.array([-0.55, -0.62, 0.95]))
_LAMP_COLOUR = np.array([2.05, 1.88, 1.62])
_LAMP_SPREAD = 0.13  # radians; wide enough for a soft edge, narrow enough for a shadow with a shape
_LAMP_POINTS = 14
_SKY_POINTS = 36
_SKY_ABOVE, _SKY_SIDE = np.array([0.62, 0.70, 0.80]), np.array([0.42, 0.44, 0.46])
_BOUNCE = np.array([0.20, 0.17, 0.14])  # what the wood and the table throw back from below

_REACH = 1.5  # half the side of a shadow map: the turntable and all on it, seen from anywhere
_OFF_SURFACE = 0.012  # how far off its surface a point is looked up, against a surface shading itself

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Mesh:
    """The scene's triangles.

    Args:
        vertices, normals: ``float64[V, 3]``.
        uv: ``float64[V, 2]``, each patch's own.
        faces: ``int64[F, 3]``, counter-clockwise from outside.
        patch: ``int64[F]``, which patch a face belongs to.
    """

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    patch: np.ndarray


@dataclass(frozen=True)
class Atlas:
    """All textures end to end, each with a border of one texel.

    Args:
        texels: ``float32[T, 4]``: radiance, and the lamp's visibility.
        offset, width, height: ``int64[P]``: where a patch's texture begins, and its size with the border.
    """

    texels: np.ndarray
    offset: np.ndarray
    width: np.ndarray
    height: np.ndarray

    def at(self, patch: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The texels at (u, v) of patches ``[N]``, interpolated: ``float32[N, 4]``."""
        x = np.clip(u, 0, 1) * (self.width[patch] - 2) + 0.5
        y = np.clip(v, 0, 1) * (self.height[patch] - 2) + 0.5
        column, row = x.astype(np.int64), y.astype(np.int64)
        right, down = (x - column).astype(np.float32)[:, None], (y - row).astype(np.float32)[:, None]
        here = self.offset[patch] + row * self.width[patch] + column
        below = here + self.width[patch]
        upper = self.texels[here] * (1 - right) + self.texels[here + 1] * right
        lower = self.texels[below] * (1 - right) + self.texels[below + 1] * right
        return upper * (1 - down) + lower * down


def tessellate(patches: list[Patch]) -> Mesh:
    """The mesh of a scene: two triangles for each cell; cells that shrink to a line at a pole give one."""
    vertices, normals, uvs, faces, owners = [], [], [], [], []
    count = 0
    for number, patch in enumerate(patches):
        nu, nv = patch.mesh
        u, v = np.meshgrid(np.linspace(0, 1, nu + 1), np.linspace(0, 1, nv + 1))
        _, world, normal = patch.surface.at(u, v)
        if patch.surface.closed:
            world = world.copy()
            world[:, -1] = world[:, 0]
        corner = count + np.arange(nv)[:, None] * (nu + 1) + np.arange(nu)
        a, b, c, d = corner, corner + 1, corner + nu + 2, corner + nu + 1
        triangles = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
        vertices.append(world.reshape(-1, 3))
        normals.append(normal.reshape(-1, 3))
        uvs.append(np.stack([u, v], -1).reshape(-1, 2))
        faces.append(triangles)
        owners.append(np.full(len(triangles), number))
        count += u.size
    points, triangles, owner = np.concatenate(vertices), np.concatenate(faces), np.concatenate(owners)
    corners = points[triangles]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = (cross * cross).sum(1) > 1e-18
    return Mesh(points, np.concatenate(normals), np.concatenate(uvs), triangles[solid], owner[solid])


@dataclass(frozen=True)
class _ShadowMap:
    """The scene from far away along ``axes[2]``."""

    axes: np.ndarray
    nearest: np.ndarray
    size: int

    def sees(self, points: np.ndarray) -> np.ndarray:
        """Whether nothing stands between the light and each of ``[…, 3]``: ``bool[…]``."""
        seen = turned(points, self.axes)
        scale = self.size / (2 * _REACH)
        column = np.floor((seen[..., 0] + _REACH) * scale).astype(np.int64)
        row = np.floor((seen[..., 1] + _REACH) * scale).astype(np.int64)
        outside = (column < 0) | (row < 0) | (column >= self.size) | (row >= self.size)
        column, row = np.clip(column, 0, self.size - 1), np.clip(row, 0, self.size - 1)
        return outside | (-seen[..., 2] >= self.nearest[row, column] - 0.5 * _OFF_SURFACE)


def _shadow_map(mesh: Mesh, casting: np.ndarray, light: np.ndarray, size: int) -> _ShadowMap:
    forward = -light
    right = unit(np.cross(forward, np.array([0.0, 1.0, 0.01])))
    axes = np.stack([right, np.cross(forward, right), forward])
    seen = turned(mesh.vertices, axes)
    pixels = (seen[:, :2] + _REACH) * (size / (2 * _REACH))
    fragments = rasterise(pixels, -seen[:, 2], mesh.faces[casting], size, size)
    return _ShadowMap(axes, fragments.nearness, size)


def _spiral(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares (i + ½)/count and golden angles: points spread evenly over a disc or a half sphere."""
    i = np.arange(count)
    return (i + 0.5) / count, i * (np.pi * (3 - np.sqrt(5)))


def _lamp_points() -> np.ndarray:
    share, angle = _spiral(_LAMP_POINTS)
    side = unit(np.cross(LAMP, np.array([0.0, 0.0, 1.0])))
    up = np.cross(side, LAMP)
    reach = _LAMP_SPREAD * np.sqrt(share)[:, None]
    return unit(LAMP + reach * (np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * up))


def _sky_points() -> np.ndarray:
    height, angle = _spiral(_SKY_POINTS)
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), height], 1)


def bake(patches: list[Patch], mesh: Mesh, each: Map) -> Atlas:
    """Light every texel of every patch.

    Args:
        each: ``map``, or one that works on several at once; results come in order, so the bits are the same.
    """
    casting = np.array([patch.casts for patch in patches])[mesh.patch]
    lamp = list(each(lambda light: _shadow_map(mesh, casting, light, 640), _lamp_points()))
    directions = _sky_points()
    sky = list(each(lambda light: _shadow_map(mesh, casting, light, 256), directions))
    textures = list(each(lambda patch: _texture(patch, lamp, sky, directions), patches))
    sizes = np.array([texture.shape[:2] for texture in textures])
    ends = np.cumsum(sizes.prod(1))
    texels = np.concatenate([texture.reshape(-1, 4) for texture in textures])
    return Atlas(texels, ends - sizes.prod(1), sizes[:, 1], sizes[:, 0])


def _texture(
    patch: Patch, lamp: list[_ShadowMap], sky: list[_ShadowMap], directions: np.ndarray
) -> np.ndarray:
    """``float32[height + 2, width + 2, 4]``: radiance and the lamp's visibility, with a border."""
    width, height = patch.texels
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    own, world, normal = patch.surface.at(u, v)
    lifted = world + _OFF_SURFACE * normal
    near = (np.abs(world) < 2.4).all(-1)  # nothing throws a shadow farther than that
    facing = np.maximum((normal * LAMP).sum(-1), 0)
    seen = (facing > 0).astype(np.float64)
    asked = near & (facing > 0)
    seen[asked] = sum(one.sees(lifted[asked]).astype(np.float64) for one in lamp) / len(lamp)
    light = seen[..., None] * facing[..., None] * _LAMP_COLOUR + _ambient(patch, sky, directions)
    inner = np.concatenate([patch.paint(own, u, v) * light, seen[..., None]], -1)
    sides = "wrap" if patch.surface.closed else "edge"
    tall = np.pad(inner, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return np.pad(tall, ((0, 0), (1, 1), (0, 0)), mode=sides).astype(np.float32)


def _ambient(patch: Patch, sky: list[_ShadowMap], directions: np.ndarray) -> np.ndarray:
    """What sky and ground give, ``float64[height, width, 3]``: found at the mesh's vertices."""
    (nu, nv), (width, height) = patch.mesh, patch.texels
    u, v = np.meshgrid(np.linspace(0, 1, nu + 1), np.linspace(0, 1, nv + 1))
    _, world, normal = patch.surface.at(u, v)
    lifted = world + _OFF_SURFACE * normal
    total = (0.5 - 0.5 * normal[..., 2, None]) * _BOUNCE
    for one, direction in zip(sky, directions, strict=True):
        colour = _SKY_SIDE + (_SKY_ABOVE - _SKY_SIDE) * direction[2]
        share = np.maximum((normal * direction).sum(-1), 0) * one.sees(lifted) * (2 / len(sky))
        total = total + share[..., None] * colour
    x, y = (np.arange(width) + 0.5) / width * nu, (np.arange(height) + 0.5) / height * nv
    i, j = x.astype(np.int64), y.astype(np.int64)
    across, down = (x - i)[None, :, None], (y - j)[:, None, None]
    upper = total[j][:, i] * (1 - across) + total[j][:, i + 1] * across
    lower = total[j + 1][:, i] * (1 - across) + total[j + 1][:, i + 1] * across
    return upper * (1 - down) + lower * down
