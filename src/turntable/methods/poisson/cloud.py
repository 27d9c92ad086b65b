"""The points that a surface is laid through: their neighbours, their normals, and which of them are wrong.

SciPy's k-d tree finds neighbours; everything else is in :mod:`.normals`.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import normals
from .mesh import Mesh
from .rays import SAME_SURFACE, Surface

PLANE_POINTS = 16
"""Nearest points through which a point's plane is laid. With 24 fox loses nothing, and edges are rounder."""

SPACING_POINTS = 6
"""Nearest points whose mean distance is the spacing of points around one."""

BLAMED_SPACINGS = 3.0
"""A surface in the way is the nearest point's fault if that is at most so many spacings away."""

SURE_VIEWS = 3
"""Views that a point is seen by where its place has been put to the test."""

ENOUGH_POINTS = 10_000
"""So many sure points do by themselves. At 960 px fox has 23,000, which score 27.8 dB; 40,000 of two views pull that
down to 26.3, and its mesh takes four times as long. At 320 px it has 3,100, and all 5,600 points score 0.4 dB more."""

MOST_PEELS = 12
"""Layers that are taken off a mesh at most: fox (960 px) has eight bubbles inside of each other."""

FEW_BLOCKED = 0.05
"""Share of blocked ways at which peeling ends: what blocks so few may be right, and the points behind it wrong."""


class Cloud(NamedTuple):
    """Points and who sees them.

    Args:
        points: ``float64[P, 3]`` in the world.
        normals: ``float64[P, 3]``, length 1, on the side of the cameras.
        towards: ``float64[P, 3]``, the direction of the cameras.
        spacings: ``float64[P]``, how far apart points are around each.
        colours: ``uint8[P, 3]``.
        seen_points, seen_views: ``int64[S]``, an entry for each point in each view that sees it.
    """

    points: np.ndarray
    normals: np.ndarray
    towards: np.ndarray
    spacings: np.ndarray
    colours: np.ndarray
    seen_points: np.ndarray
    seen_views: np.ndarray


def laid(
    points: np.ndarray,
    towards: np.ndarray,
    colours: np.ndarray,
    seen_points: np.ndarray,
    seen_views: np.ndarray,
) -> Cloud:
    """The cloud of these points; see :class:`Cloud`. Left out are those that no camera sees, those that stand alone, and
    unsure ones where there are sure ones enough."""
    cloud = Cloud(points, towards, towards, np.zeros(len(points)), colours, seen_points, seen_views)
    cloud = kept(cloud, np.abs(towards).sum(1) > 0)
    sure = support(cloud) >= SURE_VIEWS
    if sure.sum() >= ENOUGH_POINTS:
        cloud = kept(cloud, sure)
    if len(cloud.points):
        cloud = kept(cloud, normals.believed(*neighbours(cloud.points)))
    return with_normals(cloud)


def kept(cloud: Cloud, good: np.ndarray) -> Cloud:
    """The ``good``, ``bool[P]``, of a cloud's points."""
    rows = np.cumsum(good) - 1
    seen = good[cloud.seen_points]
    return Cloud(
        cloud.points[good],
        cloud.normals[good],
        cloud.towards[good],
        cloud.spacings[good],
        cloud.colours[good],
        rows[cloud.seen_points[seen]],
        cloud.seen_views[seen],
    )


def with_normals(cloud: Cloud) -> Cloud:
    """The cloud with normals and spacings that fit its points."""
    if not len(cloud.points):
        return cloud
    distances, near = neighbours(cloud.points)
    return cloud._replace(
        normals=normals.oriented_normals(cloud.points, near, cloud.towards),
        spacings=distances[:, 1 : SPACING_POINTS + 1].mean(1) if distances.shape[1] > 1 else distances[:, 0],
    )


def news(given: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Which of the ``given`` points, ``float64[G, 3]``, lie where none are ``found``, ``float64[P, 3]``: ``bool[G]``.

    The others are the same features again, as a rule, and nobody knows of them which cameras see them.
    """
    from scipy.spatial import cKDTree

    if not len(given) or not len(found):
        return np.ones(len(given), bool)
    tree = cKDTree(found)
    distances, nearest = tree.query(given)
    apart = tree.query(found, min(SPACING_POINTS + 1, len(found)))[0].reshape(len(found), -1).mean(1)
    return distances > apart[nearest]


def neighbours(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances ``float64[P, K]`` and rows ``int64[P, K]`` of each point's nearest, itself the first."""
    from scipy.spatial import cKDTree

    distances, near = cKDTree(points).query(points, min(PLANE_POINTS, len(points)))
    return distances.reshape(len(points), -1), near.reshape(len(points), -1)


class Peeled(NamedTuple):
    """A mesh with free sight, and how often each point was the nearest to what stood in the way, ``int64[P]``."""

    mesh: Mesh
    blames: np.ndarray


def peeled(mesh: Mesh, cloud: Cloud, cameras: list[Any]) -> Peeled:
    """Take away what stands between cameras and the points that they have found.

    What a camera has found is not hidden from it, but Poisson's surface knows nothing of that: wrong points, and none at
    all where it closes itself, make bubbles around the cameras. Faces that more ways are blocked by than end at
    are taken away, then what that lays bare, until most ways are free. Only ways to points that three views have seen
    count: of two views any two features on one line make a point.
    """
    from scipy.spatial import cKDTree

    blames = np.zeros(len(cloud.points), np.int64)
    if not len(mesh.faces) or not len(cloud.seen_views):
        return Peeled(mesh, blames)
    tree = cKDTree(cloud.points)
    sure = support(cloud) >= SURE_VIEWS
    ways_count = int(sure[cloud.seen_points].sum())
    for _ in range(MOST_PEELS):
        surface = Surface(mesh)
        votes = np.zeros(len(mesh.faces), np.int64)
        total = 0
        for view, camera in enumerate(cameras):
            rows = cloud.seen_points[cloud.seen_views == view]
            ways = cloud.points[rows] - camera.centre
            share, _, faces = surface.hits(camera.centre, ways)
            np.add.at(votes, faces[np.abs(share - 1) <= 1 - SAME_SURFACE], -1)
            blocked = (share < SAME_SURFACE) & sure[rows]
            total += int(blocked.sum())
            np.add.at(votes, faces[blocked], 1)
            distances, nearest = tree.query(camera.centre + ways[blocked] * share[blocked, None])
            np.add.at(blames, nearest[distances <= BLAMED_SPACINGS * cloud.spacings[nearest]], 1)
        wrong = votes > 0
        if total <= FEW_BLOCKED * ways_count or not wrong.any():
            break
        mesh = mesh._replace(faces=mesh.faces[~wrong])
        if not len(mesh.faces):
            break
    return Peeled(mesh, blames)


def without_blamed(cloud: Cloud, blames: np.ndarray) -> Cloud:
    """The cloud without points that were blamed as often as views have seen them."""
    if not len(cloud.points):
        return cloud
    return with_normals(kept(cloud, blames < np.maximum(support(cloud), 1)))


def support(cloud: Cloud) -> np.ndarray:
    """How many views have seen each point, ``int64[P]``; 0 of the capture's own."""
    return np.bincount(cloud.seen_points, minlength=len(cloud.points))


def trimmed(mesh: Mesh, cloud: Cloud, spacings: float) -> Mesh:
    """The mesh without what is farther from all points than so many of the ``spacings`` there; 0: all of it.

    COLMAP leaves vertices black that have no point in their cells; they get the colour of the nearest.
    """
    from scipy.spatial import cKDTree

    if not len(mesh.faces):
        return mesh
    distances, nearest = cKDTree(cloud.points).query(mesh.vertices)
    black = ~mesh.colours.any(1, keepdims=True)
    colours = np.where(black, cloud.colours[nearest], mesh.colours)
    near = distances <= spacings * cloud.spacings[nearest] if spacings else np.ones(len(distances), bool)
    faces = mesh.faces[near[mesh.faces].all(1)]
    used, rows = np.unique(faces, return_inverse=True)
    return Mesh(mesh.vertices[used], colours[used], rows.reshape(-1, 3).astype(np.int32))
