"""The demo's capture: cameras, depth and mesh are exact, the picture fits, the bits are the seed's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.feature import SIFT

from turntable.captures.demo import (
    FOCAL,
    HEIGHT,
    WIDTH,
    Scene,
    corner_shares,
    demo_cameras,
    demo_source,
    depth_of,
    encode_mesh,
    photo_of,
    radiance_of,
    seen_by,
)
from turntable.captures.demo_light import tessellate
from turntable.captures.demo_scene import patches
from turntable.captures.source import Progress, Source
from turntable.worker.contract import Camera
from turntable.worker.ply import read_vertices
from turntable.worker.png import read_png

DUCK, BALL = np.array([0.60, -0.22, 0.125]), np.array([-0.40, -0.39, 0.21])
"""Where two things stand, in turntable radii: a yellow body and a teal ball."""

ONE_CORE = """
import os, sys
from pathlib import Path
os.cpu_count = lambda: 1
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from turntable.captures.demo import Scene, demo_cameras, encode_mesh, photo_of, radiance_of
scene, folder = Scene.build(), Path(sys.argv[1])
for i in (3, 41):
    (folder / f"{i:03d}.raw").write_bytes(photo_of(radiance_of(demo_cameras(0)[i], scene), 0, i).tobytes())
(folder / "mesh.ply").write_bytes(encode_mesh(scene.mesh))
"""


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.build()


@pytest.fixture(scope="module")
def heard() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, heard: list[tuple[str, int, int]]) -> Source:
    progress = Progress(lambda name, done, total: heard.append((name, done, total)))
    return demo_source(tmp_path_factory.mktemp("demo"), 0, progress)


def camera_of(source: Source, index: int) -> Camera:
    """The camera of a view, of what the source says alone."""
    view = source.views[index]
    fx, fy, cx, cy = view.camera.params
    return Camera(view.camera.width, view.camera.height, fx, fy, cx, cy, view.R, view.t)


def rays_of(camera: Camera, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """World directions through pixel centres with z 1 in the camera: ``float64[N, 3]``."""
    x, y = (columns + 0.5 - camera.cx) / camera.fx, (rows + 0.5 - camera.cy) / camera.fy
    return np.stack([x, y, np.ones(len(x))], 1) @ camera.R


def read_faces(path: Path) -> np.ndarray:
    """The triangles of a binary mesh, by the PLY format's description: ``int[F, 3]``."""
    data = path.read_bytes()
    header = data[: data.index(b"end_header\n")].decode().splitlines()
    count = next(int(line.split()[2]) for line in header if line.startswith("element face"))
    assert "property list uchar int vertex_indices" in header
    rows = np.frombuffer(data[-13 * count :], np.uint8).reshape(count, 13)
    assert (rows[:, 0] == 3).all()
    return rows[:, 1:].copy().view("<i4")


def test_there_are_sixty_photos_of_three_heights_each_with_an_exact_camera(source: Source) -> None:
    assert len(source.views) == 60
    assert [view.name for view in source.views] == sorted(view.name for view in source.views)
    heights = np.array([camera_of(source, i).centre[2] for i in range(60)])
    assert heights[:20].max() < heights[20:40].min() < heights[20:40].max() < heights[40:].min()
    for i, view in enumerate(source.views):
        assert read_png(view.image_path).shape == (HEIGHT, WIDTH, 3)
        assert (view.camera.model, view.camera.params) == ("PINHOLE", (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2))
        np.testing.assert_allclose(view.R @ view.R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view.R) == pytest.approx(1)
        assert np.load(source.truth[f"depth/{view.name}.npy"]).shape == (HEIGHT, WIDTH)
        assert (
            camera_of(source, i).project(np.array([[0, 0, 1.0], [0, 0, 0]]))[0][:, 1].argmin() == 0
        )  # upright


def test_progress_is_told_photo_by_photo(source: Source, heard: list[tuple[str, int, int]]) -> None:
    assert heard == [("rendering", done, 60) for done in range(1, 61)]
    assert len(source.views) == 60


def test_depth_is_the_nearest_hit_of_each_pixels_ray_on_the_mesh(source: Source) -> None:
    """Every triangle against every ray (Möller and Trumbore 1997): nothing of the rasteriser's."""
    vertices = read_vertices(source.truth["mesh.ply"])
    corners = np.stack([vertices[a] for a in "xyz"], 1)[read_faces(source.truth["mesh.ply"])]
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    draw = np.random.default_rng(0)
    for index in (1, 31, 52):
        camera = camera_of(source, index)
        depth = np.load(source.truth[f"depth/{source.views[index].name}.npy"])
        assert depth.dtype == np.float32
        columns, rows = draw.integers(0, WIDTH, 40), draw.integers(0, HEIGHT, 40)
        for ray, seen in zip(rays_of(camera, columns, rows), depth[rows, columns], strict=True):
            across = np.cross(ray, edge2)
            determinant = (edge1 * across).sum(1)
            front = np.where(determinant > 1e-14, determinant, np.nan)
            away = camera.centre - corners[:, 0]
            u = (away * across).sum(1) / front
            turned = np.cross(away, edge1)
            v, z = (turned * ray).sum(1) / front, (turned * edge2).sum(1) / front
            hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (z > 0)
            assert seen == pytest.approx(z[hit].min(), rel=1e-6)


def test_what_is_interpolated_over_a_triangle_is_in_perspective(scene: Scene) -> None:
    """Interpolated so, the corners' places are the place that the pixel's ray meets at its depth."""
    camera, mesh = demo_cameras(0)[30], scene.mesh
    fragments = seen_by(camera, mesh)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].reshape(2, -1)
    face, z = fragments.face.ravel(), 1 / fragments.nearness.ravel()
    share = corner_shares(camera, mesh, fragments, face, np.stack([columns, rows], 1) + 0.5, z)
    interpolated = (share[..., None] * mesh.vertices[mesh.faces[face]]).sum(1)
    np.testing.assert_allclose(
        interpolated, camera.centre + rays_of(camera, columns, rows) * z[:, None], atol=1e-7
    )
    np.testing.assert_allclose(share.sum(1), 1, atol=1e-7)


def test_one_views_depth_carries_its_colours_into_another(source: Source, scene: Scene) -> None:
    here, there = camera_of(source, 22), camera_of(source, 23)
    one, other = (radiance_of(camera, scene, highlights=False) for camera in (here, there))
    depth = np.load(source.truth[f"depth/{source.views[22].name}.npy"]).astype(np.float64)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].reshape(2, -1)
    points = here.centre + rays_of(here, columns, rows) * depth.ravel()[:, None]
    pixels, z = there.project(points)
    inside = ((pixels >= 1) & (pixels < [WIDTH - 1, HEIGHT - 1])).all(1)
    column, row = (np.floor(pixels[inside, k]).astype(int) for k in range(2))
    depth_there = np.load(source.truth[f"depth/{source.views[23].name}.npy"])[row, column]
    visible = np.abs(depth_there - z[inside]) < 0.02
    assert visible.mean() > 0.7

    def difference(shift: int) -> np.ndarray:
        colours = other[row[visible], np.minimum(column[visible] + shift, WIDTH - 1)]
        return np.abs(colours - one.reshape(-1, 3)[inside][visible]).mean(1)

    assert np.median(difference(0)) < 0.012
    assert difference(0).mean() < 0.6 * difference(3).mean()


@pytest.mark.parametrize("thing", ["duck", "ball"])
def test_known_things_are_seen_where_their_cameras_say(source: Source, thing: str) -> None:
    centre, radius = {"duck": (DUCK, 0.20), "ball": (BALL, 0.21)}[thing]
    seen = []
    for index, view in enumerate(source.views):
        pixel, z = camera_of(source, index).project(centre[None])
        column, row = np.floor(pixel[0]).astype(int)
        if not (2 <= column < WIDTH - 2 and 2 <= row < HEIGHT - 2):
            continue
        depth = np.load(source.truth[f"depth/{view.name}.npy"])[row, column]
        if not 0 < z[0] - depth < 1.1 * radius:
            continue  # something stands before it
        seen.append(read_png(view.image_path)[row - 2 : row + 3, column - 2 : column + 3].mean((0, 1)))
    assert len(seen) >= 15
    red, green, blue = np.median(seen, 0)  # of all views: single ones meet a highlight, a wing or a vein
    assert (red > green > 1.5 * blue) if thing == "duck" else (green > 1.1 * red and blue > 1.05 * red)


def test_every_pixel_sees_something(source: Source) -> None:
    for view in source.views:
        assert np.load(source.truth[f"depth/{view.name}.npy"]).min() > 1


def test_photos_have_points_that_sift_finds(source: Source) -> None:
    detector = SIFT()
    detector.detect_and_extract(read_png(source.views[25].image_path).mean(2) / 255)
    assert len(detector.keypoints) > 300


def test_the_noise_is_the_seeds_and_every_photos_own(scene: Scene) -> None:
    camera = demo_cameras(0)[10]
    radiance = radiance_of(camera, scene)
    photo = photo_of(radiance, 0, 10)
    assert np.array_equal(photo, photo_of(radiance, 0, 10))
    for other in (photo_of(radiance, 1, 10), photo_of(radiance, 0, 11)):
        difference = photo.astype(float) - other
        assert 1 < difference.std() / np.sqrt(2) < 4
        assert abs(difference.mean()) < 0.05


def test_noise_grows_as_photons_do() -> None:
    """Its variance over the signal is the same at two brightnesses, but for the sensor's read noise."""
    spread = [photo_of(np.full((200, 200, 3), level), 0, 0).astype(float) / 255 for level in (0.1, 0.4)]
    linear = [((one + 0.055) / 1.055) ** 2.4 for one in spread]
    dark, bright = (one.var() / one.mean() for one in linear)
    assert dark == pytest.approx(bright, rel=0.1)


def test_another_seed_holds_the_camera_otherwise() -> None:
    one, same, other = demo_cameras(0), demo_cameras(0), demo_cameras(1)
    assert all(np.array_equal(a.R, b.R) and np.array_equal(a.t, b.t) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a.t, b.t) for a, b in zip(one, other, strict=True))


def test_the_same_seed_gives_the_same_bits_in_another_process_on_one_core(
    source: Source, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", ONE_CORE, str(tmp_path)], check=True)
    for index in (3, 41):
        photo = read_png(source.views[index].image_path)
        assert (tmp_path / f"{index:03d}.raw").read_bytes() == photo.tobytes()
    assert (tmp_path / "mesh.ply").read_bytes() == source.truth["mesh.ply"].read_bytes()


def test_the_mesh_faces_outward_and_the_depth_is_its_own(source: Source) -> None:
    mesh = tessellate(patches())
    corners = mesh.vertices[mesh.faces]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    agree = (outward * mesh.normals[mesh.faces].sum(1)).sum(1) > 0
    assert agree.mean() > 0.995  # at poles and sharp rims a normal is no triangle's
    stored = np.load(source.truth[f"depth/{source.views[5].name}.npy"])
    assert np.array_equal(depth_of(demo_cameras(0)[5], mesh), stored)
    assert encode_mesh(mesh) == source.truth["mesh.ply"].read_bytes()
