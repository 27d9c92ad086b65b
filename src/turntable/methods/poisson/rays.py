"""Where rays hit a mesh, by Intel's Embree."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .mesh import Mesh

SAME_SURFACE = 0.98
"""Share of the way to a point from which on a surface is taken to be that point's own: meshes are that inexact."""


class Hits(NamedTuple):
    """Where rays end: ``distances`` float64[N] in lengths of their directions, inf where nothing is hit;
    ``colours`` float32[N, 3], interpolated between the vertices, 0 there; ``faces`` int64[N], -1 there."""

    distances: np.ndarray
    colours: np.ndarray
    faces: np.ndarray


class Surface:
    """A mesh that rays are cast at."""

    def __init__(self, mesh: Mesh) -> None:
        self._scene: Any = None
        self._mesh = mesh
        if not len(mesh.faces):
            return
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        # Embree computes in float32: the mesh is brought to the origin, at size 1, so that nothing is lost there.
        self._middle = mesh.vertices.mean(0, dtype=np.float64)
        self._size = float(np.abs(mesh.vertices - self._middle).max())
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, self._local(mesh.vertices), mesh.faces)

    def _local(self, points: np.ndarray) -> np.ndarray:
        return ((points - self._middle) / self._size).astype(np.float32)

    def _cast(self, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        return self._scene.run(
            np.ascontiguousarray(self._local(origins)),
            np.ascontiguousarray((directions / self._size).astype(np.float32)),
            output=1,
        )

    def hits(self, origin: np.ndarray, directions: np.ndarray) -> Hits:
        """The nearest hit of each ray.

        Args:
            origin: ``float64[3]``, of all rays.
            directions: ``float64[N, 3]``.
        """
        distances = np.full(len(directions), np.inf)
        colours = np.zeros((len(directions), 3), np.float32)
        faces = np.full(len(directions), -1)
        if self._scene is None or not len(directions):
            return Hits(distances, colours, faces)
        found = self._cast(np.broadcast_to(origin, directions.shape), directions)
        hit = np.flatnonzero(found["primID"] >= 0)
        distances[hit], faces[hit] = found["tfar"][hit], found["primID"][hit]
        u, v = found["u"][hit, None], found["v"][hit, None]
        corners = self._mesh.colours[self._mesh.faces[found["primID"][hit]]].astype(np.float32) / np.float32(
            255
        )
        colours[hit] = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        return Hits(distances, colours, faces)

    def visible(self, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Whether nothing stands between ``points``, ``float64[N, 3]``, and a camera's ``centre``: ``bool[N]``."""
        if self._scene is None or not len(points):
            return np.ones(len(points), bool)
        found = self._cast(np.broadcast_to(centre, points.shape), points - centre)
        return (found["primID"] < 0) | (found["tfar"] > SAME_SURFACE)
