"""Depth maps to a mesh (Curless and Levoy 1996), and what a camera sees of it: all that Open3D does here."""

# pyright: reportMissingImports=false
from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, NamedTuple, Tuple

import numpy as np

# The volume starts a team of OpenMP threads for each of its thousands of blocks. On cores that others use too, these wait
# for each other most of the time: 43 photos took 43 s in threads and 2 s without. OpenMP reads this as it's loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import open3d as o3d

from .geometry import Frame, Pinhole

UNIT = 16
"""Edge in voxels of the blocks that Open3D allocates, its own default."""
UNIT_BYTES = UNIT**3 * 48
"""Of one block: a voxel holds its place (three integers, padded), a colour (three doubles), a distance and a weight."""
TRUNCATION = 4.0
"""Voxels in front of and behind a surface whose distance to it is kept."""
SMALLEST_PIECE = 200
"""Triangles below which a piece of the mesh that hangs together with nothing else is taken for an error of matching."""


class Mesh(NamedTuple):
    """``vertices`` float32[V, 3], ``triangles`` uint32[T, 3], ``colours`` float32[V, 3] in [0, 1], sRGB."""

    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray

    @classmethod
    def empty(cls) -> "Mesh":
        """A mesh of nothing."""
        return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint32), np.zeros((0, 3), np.float32))


def fuse(views: Iterable[Tuple[Pinhole, np.ndarray, np.ndarray]], voxel: float) -> Mesh:
    """The surface that depth maps have in common.

    Args:
        views: camera, ``float32[H, W]`` depth (0: unknown) and ``uint8[H, W, 3]`` photo of that size, one after another; the
            order matters to the last bits.
        voxel: edge of a voxel, in the cameras' unit.
    """
    volume = o3d.pipelines.integration.ScalableTSDFVolume(
        voxel_length=voxel,
        sdf_trunc=TRUNCATION * voxel,
        color_type=o3d.pipelines.integration.TSDFVolumeColorType.RGB8,
        volume_unit_resolution=UNIT,
        depth_sampling_stride=2,
    )
    for camera, depth, photo in views:
        if not depth.any():
            continue
        image = o3d.geometry.RGBDImage.create_from_color_and_depth(
            o3d.geometry.Image(np.ascontiguousarray(photo)),
            o3d.geometry.Image(np.ascontiguousarray(depth)),
            depth_scale=1.0,
            depth_trunc=float(depth.max()) * 2,
            convert_rgb_to_intensity=False,
        )
        K = camera.K
        # Open3D's pixel centres lie at whole numbers.
        intrinsic = o3d.camera.PinholeCameraIntrinsic(
            camera.width, camera.height, K[0, 0], K[1, 1], K[0, 2] - 0.5, K[1, 2] - 0.5
        )
        extrinsic = np.eye(4)
        extrinsic[:3, :3], extrinsic[:3, 3] = camera.R, -camera.R @ camera.centre
        volume.integrate(image, intrinsic, extrinsic)
    mesh = volume.extract_triangle_mesh()
    if len(mesh.triangles):
        pieces, sizes, _ = mesh.cluster_connected_triangles()
        mesh.remove_triangles_by_mask(np.asarray(sizes)[np.asarray(pieces)] < SMALLEST_PIECE)
        mesh.remove_unreferenced_vertices()
    return _ordered(np.asarray(mesh.vertices), np.asarray(mesh.triangles), np.asarray(mesh.vertex_colors))


def _ordered(vertices: np.ndarray, triangles: np.ndarray, colours: np.ndarray) -> Mesh:
    """The mesh with its vertices and triangles sorted: Open3D's come out of hash tables."""
    if not len(triangles):
        return Mesh.empty()
    order = np.lexsort(vertices.T[::-1])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    corners = place[triangles]
    first = corners.argmin(1)
    corners = np.take_along_axis(corners, (first[:, None] + np.arange(3)) % 3, 1)
    corners = corners[np.lexsort(corners.T[::-1])]
    return Mesh(
        vertices[order].astype(np.float32), corners.astype(np.uint32), colours[order].astype(np.float32)
    )


class Scene:
    """A mesh that rays are cast at."""

    def __init__(self, mesh: Mesh, threads: int) -> None:
        self.mesh = mesh
        self._threads = threads
        self._scene = None
        if len(mesh.triangles):
            scene = o3d.t.geometry.RaycastingScene(nthreads=threads)
            scene.add_triangles(o3d.core.Tensor(mesh.vertices), o3d.core.Tensor(mesh.triangles))
            self._scene = scene

    def seen(self, camera: Pinhole) -> Tuple[np.ndarray, np.ndarray]:
        """What a camera sees, by a ray through every pixel's middle.

        Returns:
            ``float32[H, W]`` z depth, 0 where nothing is hit; and ``float32[H, W, 3]``, the colour of the mesh itself there.
        """
        shape = (camera.height, camera.width)
        if self._scene is None:
            return np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32)
        # Rays have z = 1, so that the distance along them is z depth.
        directions = camera.rays() @ camera.R
        rays = np.concatenate([np.broadcast_to(camera.centre, directions.shape), directions], -1)
        hit = self._scene.cast_rays(o3d.core.Tensor(rays.astype(np.float32)), nthreads=self._threads)
        depth = hit["t_hit"].numpy()
        found = np.isfinite(depth)
        depth = np.where(found, depth, np.float32(0))
        colour = np.zeros((*shape, 3), np.float32)
        corners = self.mesh.triangles[hit["primitive_ids"].numpy()[found]]
        second, third = np.moveaxis(hit["primitive_uvs"].numpy()[found], -1, 0)[:, :, None]
        theirs = self.mesh.colours[corners]
        colour[found] = theirs[:, 0] * (1 - second - third) + theirs[:, 1] * second + theirs[:, 2] * third
        return depth, colour


def write_ply(path: Path, mesh: Mesh, frame: Frame) -> None:
    """Write a mesh with its colours in the capture's own coordinates: binary PLY, double precision."""
    count = len(mesh.vertices)
    kinds = [(axis, "<f8") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    points = np.zeros(count, np.dtype(kinds))
    world = mesh.vertices.astype(np.float64) * frame.scale + frame.origin
    for number, axis in enumerate("xyz"):
        points[axis] = world[:, number]
    for number, name in enumerate(("red", "green", "blue")):
        points[name] = np.rint(np.clip(mesh.colours[:, number], 0, 1) * 255)
    faces = np.zeros(len(mesh.triangles), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, mesh.triangles
    lines = ["ply", "format binary_little_endian 1.0", "element vertex {}".format(count)]
    lines += ["property double {}".format(axis) for axis in "xyz"]
    lines += ["property uchar {}".format(name) for name in ("red", "green", "blue")]
    lines += [
        "element face {}".format(len(faces)),
        "property list uchar int vertex_indices",
        "end_header",
        "",
    ]
    with path.open("wb") as file:
        file.write("\n".join(lines).encode("ascii"))
        file.write(points.tobytes())
        file.write(faces.tobytes())
