"""``turntable demo``'s own capture: a still life rendered on the spot, all of it known exactly.

Sixty photos from three heights, with the noise that a sensor's photons make, their exact cameras, and as
truth the mesh that was rendered (``mesh.ply``, world units, all surfaces, hidden ones too) and each photo's
depth (``depth/<view>.npy``, ``float32[H, W]``, z at pixel centres, in turntable radii). The scene is always
the same; the seed draws how unevenly the camera was held, and the noise. The same seed gives the same bits,
however many threads there are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import write_bytes
from ..machine import usable_cores
from ..worker.contract import Camera
from ..worker.ply import encode_vertices
from ..worker.png import write_png
from .demo_light import LAMP, Atlas, Map, Mesh, bake, tessellate
from .demo_raster import Fragments, rasterise
from .demo_scene import Patch, patches
from .demo_shapes import turned, unit
from .source import Progress, Source, SourceCamera, SourceView

FORMAT = "demo"
WIDTH, HEIGHT = 320, 240
FOCAL = 385.0
RINGS = ((0.28, 20), (0.58, 20), (0.92, 20))
"""Elevation in radians, and how many photos all around."""

_TARGET = np.array([0.0, 0.0, 0.24])
_DISTANCE = 3.15
_SAMPLES = 2  # per pixel and direction, against stairs on edges
_EXPOSURE = 0.84
_FULL_WELL = 9000.0  # electrons at white, as in a phone's small pixels at low ISO
_READ_NOISE = 6.0  # electrons


@dataclass(frozen=True)
class Scene:
    """The still life, lit: everything that is the same for all photos."""

    patches: list[Patch]
    mesh: Mesh
    atlas: Atlas

    @classmethod
    def build(cls, each: Map = map) -> Scene:
        """Shape and light it; ``each`` is ``map`` or one that works on several at once."""
        found = patches()
        mesh = tessellate(found)
        return cls(found, mesh, bake(found, mesh, each))


def demo_source(scratch: Path, seed: int = 0, progress: Progress | None = None) -> Source:
    """Render the demo's capture.

    Args:
        scratch: an existing folder, which photos and truth are written to.
        seed: of the cameras' unevenness and the sensor's noise.
        progress: told after every photo.

    Raises:
        OSError: the files can't be written.
    """
    progress = progress or Progress()
    for folder in ("photos", "depth"):
        (scratch / folder).mkdir(exist_ok=True)
    cameras = demo_cameras(seed)
    with ThreadPoolExecutor(min(usable_cores(), 8)) as pool:
        scene = Scene.build(pool.map)
        work = pool.map(lambda i: _photograph(scene, scratch, cameras[i], i, seed), range(len(cameras)))
        views = []
        for done, view in enumerate(work, 1):
            views.append(view)
            progress("rendering", done, len(cameras))
    write_bytes(scratch / "mesh.ply", encode_mesh(scene.mesh))
    truth = {f"depth/{view.name}.npy": scratch / "depth" / f"{view.name}.npy" for view in views}
    return Source(
        format=FORMAT,
        views=views,
        poses={"method": "exact: the cameras that the demo's photos were rendered with", "seed": seed},
        truth={"mesh.ply": scratch / "mesh.ply", **truth},
        notes=["The photos were rendered by Turntable itself; cameras, depth and mesh are exact."],
    )


def demo_cameras(seed: int = 0) -> list[Camera]:
    """Where the photos are taken from: three rings, each photo held a little unevenly."""
    draw = np.random.default_rng([seed, 1])
    cameras = []
    for ring, (elevation, count) in enumerate(RINGS):
        for i in range(count):
            uneven = draw.uniform(-1, 1, 6)
            azimuth = 2 * np.pi * (i + ring / 3) / count + 0.05 * uneven[0]
            height = elevation + 0.04 * uneven[1]
            out = np.array(
                [np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]
            )
            centre = _TARGET + out * _DISTANCE * (1 + 0.04 * uneven[2])
            forward = unit(_TARGET + 0.05 * uneven[3:6] - centre)
            right = unit(np.cross(forward, np.array([0.0, 0.0, 1.0])))
            R = np.stack([right, np.cross(forward, right), forward])
            t = -(R * centre).sum(1)
            cameras.append(Camera(WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, R, t))
    return cameras


def seen_by(camera: Camera, mesh: Mesh, samples: int = 1) -> Fragments:
    """What ``camera`` sees of the mesh, through ``samples``² samples per pixel; nearness is 1/z."""
    seen = turned(mesh.vertices, camera.R) + camera.t
    with np.errstate(divide="ignore", invalid="ignore"):
        nearness = np.where(seen[:, 2] > 0.05, 1 / seen[:, 2], np.nan)
        x = (camera.fx * seen[:, 0] * nearness + camera.cx) * samples
        y = (camera.fy * seen[:, 1] * nearness + camera.cy) * samples
    size = camera.width * samples, camera.height * samples
    return rasterise(np.stack([x, y], 1), nearness, mesh.faces, *size)


def depth_of(camera: Camera, mesh: Mesh) -> np.ndarray:
    """z at every pixel's centre, ``float32[H, W]``; 0 where nothing is seen (nowhere, inside of the room)."""
    nearness = seen_by(camera, mesh).nearness
    return np.where(nearness > 0, 1 / np.maximum(nearness, 1e-12), 0).astype(np.float32)


def corner_shares(
    camera: Camera, mesh: Mesh, fragments: Fragments, face: np.ndarray, at: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """How much each corner of its triangle weighs at what a sample sees: barycentric on the triangle itself.

    Args:
        face: ``int64[N]``, the triangle seen; at: ``float64[N, 2]``, the sample in the fragments' picture;
            z: ``float64[N]``, its depth.

    Returns:
        ``float64[N, 3]``: the seen point is their weighted sum of the corners.
    """
    coefficients = fragments.weights[face]
    flat = coefficients[..., 0] * at[:, :1] + coefficients[..., 1] * at[:, 1:] + coefficients[..., 2]
    corner_z = (turned(mesh.vertices, camera.R) + camera.t)[:, 2][mesh.faces[face]]
    return flat * z[:, None] / corner_z


def radiance_of(camera: Camera, scene: Scene, highlights: bool = True) -> np.ndarray:
    """What a sensor without noise would measure: linear RGB, ``float64[H, W, 3]``.

    Args:
        highlights: whether what changes with the point of view is added to what does not.
    """
    mesh = scene.mesh
    fragments = seen_by(camera, mesh, _SAMPLES)
    face = fragments.face.ravel()
    covered = np.flatnonzero(face >= 0)
    face = face[covered]
    row, column = np.divmod(covered, camera.width * _SAMPLES)
    x, y, z = column + 0.5, row + 0.5, 1 / fragments.nearness.ravel()[covered]
    corners = mesh.faces[face]
    share = corner_shares(camera, mesh, fragments, face, np.stack([x, y], 1), z)
    uv = (share[..., None] * mesh.uv[corners]).sum(1)
    patch = mesh.patch[face]
    lit = scene.atlas.at(patch, uv[:, 0], uv[:, 1])
    colour = lit[:, :3].astype(np.float64)
    if highlights:
        shiny = np.array([one.gloss for one in scene.patches])[patch] > 0
        at = np.stack([(x / _SAMPLES - camera.cx) / camera.fx, (y / _SAMPLES - camera.cy) / camera.fy], 1)[
            shiny
        ]
        towards = unit(-turned(np.concatenate([at, np.ones((len(at), 1))], 1), camera.R.T))
        normal = unit((share[shiny][..., None] * mesh.normals[corners[shiny]]).sum(1))
        colour[shiny] += _highlight(scene.patches, patch[shiny], normal, towards, lit[shiny, 3])
    picture = np.zeros((camera.height * _SAMPLES * camera.width * _SAMPLES, 3))
    picture[covered] = colour
    blocks = picture.reshape(camera.height, _SAMPLES, camera.width, _SAMPLES, 3)
    return blocks.mean((1, 3))


def _highlight(
    found: list[Patch], patch: np.ndarray, normal: np.ndarray, towards: np.ndarray, lamp_seen: np.ndarray
) -> np.ndarray:
    """What a glossy surface mirrors of lamp (Blinn 1977) and sky (Fresnel after Schlick 1994): ``[N, 3]``."""
    gloss = np.array([one.gloss for one in found])[patch]
    sharpness = np.array([one.sharpness for one in found])[patch]
    halfway = np.maximum((normal * unit(towards + LAMP)).sum(1), 0)
    lamp = 1.6 * gloss * lamp_seen * halfway**sharpness
    facing = np.clip((normal * towards).sum(1), 0, 1)
    mirrored_up = 2 * facing * normal[:, 2] - towards[:, 2]
    fresnel = 0.04 + 0.96 * (1 - facing) ** 5
    sky = gloss * fresnel * np.clip(0.35 + 0.65 * mirrored_up, 0, 1) * 0.7
    return lamp[:, None] * np.array([1.0, 0.96, 0.88]) + sky[:, None] * np.array([0.9, 0.97, 1.05])


def photo_of(radiance: np.ndarray, seed: int, number: int) -> np.ndarray:
    """What a sensor makes of linear RGB: noise, a soft shoulder, sRGB; ``uint8[H, W, 3]``."""
    exposed = radiance * _EXPOSURE
    draw = np.random.default_rng([seed, 2, number])
    electrons = np.sqrt(exposed * _FULL_WELL + _READ_NOISE**2)
    noisy = np.maximum(exposed + draw.standard_normal(exposed.shape) * electrons / _FULL_WELL, 0)
    shoulder = np.where(noisy < 0.7, noisy, 1 - 0.3 * np.exp(-(np.maximum(noisy, 0.7) - 0.7) / 0.3))
    srgb = np.where(
        shoulder <= 0.0031308, 12.92 * shoulder, 1.055 * np.maximum(shoulder, 1e-9) ** (1 / 2.4) - 0.055
    )
    return np.round(np.clip(srgb, 0, 1) * 255).astype(np.uint8)


def encode_mesh(mesh: Mesh) -> bytes:
    """The mesh as a binary PLY file: positions in double precision, normals, triangles."""
    vertices = np.zeros(
        len(mesh.vertices), [(a, "<f8") for a in "xyz"] + [(a, "<f4") for a in ("nx", "ny", "nz")]
    )
    for i, axis in enumerate("xyz"):
        vertices[axis] = mesh.vertices[:, i]
        vertices["n" + axis] = mesh.normals[:, i]
    faces = np.zeros(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"] = 3
    faces["corners"] = mesh.faces
    element = f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n".encode()
    return encode_vertices(vertices).replace(b"end_header\n", element, 1) + faces.tobytes()


def _photograph(scene: Scene, scratch: Path, camera: Camera, number: int, seed: int) -> SourceView:
    name = f"{number:03d}.png"
    photo = photo_of(radiance_of(camera, scene), seed, number)
    write_png(scratch / "photos" / name, photo)
    np.save(scratch / "depth" / f"{name}.npy", depth_of(camera, scene.mesh))
    intrinsics = SourceCamera("PINHOLE", (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2), WIDTH, HEIGHT)
    return SourceView(name, scratch / "photos" / name, intrinsics, camera.R, camera.t)
