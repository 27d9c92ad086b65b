"""What several depth maps say together: NumPy alone. Depth is z, and 0 where none is known."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from .geometry import Pinhole, lookup


def vote(depths: np.ndarray, steps: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """One depth for each pixel out of those that several partners gave.

    Two agree where their inverse depths are at most as far apart as one pixel of disparity is in both together. The
    answer is the mean inverse depth, weighted by precision, of the depth with most agreement and all that agree with it;
    of several, the first.

    Args:
        depths: ``float32[N, H, W]``, 0 where unknown.
        steps: ``float[N]``, the change of inverse depth that one pixel of disparity means: 1 / (focal · baseline).

    Returns:
        ``float32[H, W]`` depths, 0 where no partner has one; ``uint8[H, W]``, how many agree (1: the depth stands alone).
    """
    known = depths > 0
    with np.errstate(divide="ignore"):
        inverse = np.where(known, 1 / depths.astype(np.float64), np.inf)
    best, count = np.zeros(depths.shape[1:]), np.zeros(depths.shape[1:], np.uint8)
    for one in range(len(depths)):
        agree = np.zeros_like(known)
        for other in range(len(depths)):
            both = known[one] & known[other]
            apart = np.abs(
                np.subtract(inverse[one], inverse[other], where=both, out=np.full(both.shape, np.inf))
            )
            agree[other] = apart <= steps[one] + steps[other]
        weights = agree / (steps**2)[:, None, None]
        total = weights.sum(0)
        mean = np.divide((weights * np.where(known, inverse, 0)).sum(0), total, where=total > 0, out=best * 0)
        votes = agree.sum(0).astype(np.uint8)
        better = votes > count
        best, count = np.where(better, mean, best), np.where(better, votes, count)
    depth = np.divide(1, best, where=best > 0, out=np.zeros_like(best))
    return depth.astype(np.float32), count


def agreements(
    camera: Pinhole, depth: np.ndarray, others: "list[tuple[Pinhole, np.ndarray]]", tolerance: float
) -> Tuple[np.ndarray, np.ndarray]:
    """How many other depth maps hold the same surface, and how many see through it (as in Merrell et al. 2007).

    Args:
        camera, depth: the photo's, ``float32[H, W]``.
        others: cameras and depth maps of other photos.
        tolerance: depths of a point that are at most this share of the depth apart are the same.

    Returns:
        Two ``uint8[H, W]``: the depth maps that agree, and those that know a surface behind the point, where it
        would stand in the way: more than three tolerances farther.
    """
    rays = camera.rays().astype(np.float32)
    points = (rays * depth[..., None]) @ camera.R.astype(np.float32) + camera.centre.astype(np.float32)
    agree, against = np.zeros(depth.shape, np.uint8), np.zeros(depth.shape, np.uint8)
    for other, theirs in others:
        column, row, z = other.project(points)
        found = lookup(theirs, column, row)
        usable = (depth > 0) & (found > 0)
        agree += usable & (np.abs(found - z) <= tolerance * z)
        against += usable & (found > (1 + 3 * tolerance) * z)
    return agree, against


def consistent(
    cameras: List[Pinhole],
    depths: List[np.ndarray],
    votes: List[np.ndarray],
    partners: List[List[int]],
    tolerance: float,
) -> List[np.ndarray]:
    """The depth maps without what other photos' depth maps speak against.

    Photos are compared that are partners either way. A depth stays if another map has the same surface, or two
    partners gave it; and if fewer see through it than have it.
    """
    kept = []
    for index, (camera, depth) in enumerate(zip(cameras, depths)):
        near = set(partners[index]) | {other for other, theirs in enumerate(partners) if index in theirs}
        others = [(cameras[other], depths[other]) for other in sorted(near) if other < len(depths)]
        agree, against = agreements(camera, depth, others, tolerance)
        support = agree + np.maximum(votes[index], 1) - 1
        kept.append(np.where((support >= 1) & (against <= agree), depth, np.float32(0)))
    return kept


def fitting_voxel(
    cameras: List[Pinhole], depths: List[np.ndarray], pixels: float, block: int, most_blocks: int
) -> float:
    """The edge of a voxel: ``pixels`` pixels at the median depth, grown by tenths until the volume has few enough blocks.

    Args:
        cameras, depths: the depth maps, ``float32[H, W]``, 0 where unknown.
        pixels: how many.
        block: edge, in voxels, of the blocks that the volume consists of.
        most_blocks: how many of them it may have.

    Returns:
        The edge in the cameras' unit; 0 where there is no depth at all.
    """
    footprints, points = [], []
    for camera, depth in zip(cameras, depths):
        thin = depth[::4, ::4]
        seen = thin > 0
        footprints.append(thin[seen] / camera.K[0, 0])
        points.append((camera.rays()[::4, ::4][seen] * thin[seen][:, None]) @ camera.R + camera.centre)
    if not sum(map(len, footprints)):
        return 0.0
    voxel = pixels * float(np.median(np.concatenate(footprints)))
    everything = np.concatenate(points)
    while (blocks := blocks_of(everything, voxel * block)) > most_blocks:
        voxel *= max(
            1.1, float(np.sqrt(blocks / most_blocks))
        )  # a surface's blocks go down with the square of their edge
    return voxel


def blocks_of(points: np.ndarray, edge: float) -> int:
    """How many cubes of this edge have one of ``points`` in them or nearly so, a quarter of the edge away."""
    shifts = np.stack(np.meshgrid(*[(-0.25, 0.25)] * 3), -1).reshape(-1, 3)
    near = [np.unique(np.floor(points / edge + shift).astype(np.int64), axis=0) for shift in shifts]
    return len(np.unique(np.concatenate(near), axis=0))
