"""What is shown of a run: read from what methods export, put into viser's world, and written as one HTML file."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from browsers import chromium
from conftest import make_capture, make_method
from turntable.bench import Bench
from turntable.environments import sandbox
from turntable.errors import TurntableError
from turntable.jobs import RunRequest, plan, work
from turntable.methods.splat.export import ply as splat_ply
from turntable.methods.splat.kernels import HARMONIC, MEAN, OPACITY, QUATERNION, ROWS, SCALE
from turntable.record import RunRow, State
from turntable.run import Budget
from turntable.scene_files import Content, Mesh, Points, Splats, read_exported
from turntable.scenes import (
    DISTANCE,
    as_html,
    fov_of,
    frame_of,
    glb,
    static_scene,
    wxyz_of,
)
from turntable.turns import checkpoint
from turntable.turns.watcher import Watcher
from turntable.worker.contract import Camera
from turntable.worker.ply import encode_points, encode_vertices

SPLATS_CODE = '''
    def export(self, folder):
        """Twenty grey balls."""
        names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
        names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
        table = np.zeros((20, 14), "<f4")
        table[:, :3] = np.random.default_rng(0).uniform(-1, 1, (20, 3))
        table[:, 6], table[:, 7:10], table[:, 10] = 4.0, -2.0, 1.0
        lines = ["ply", "format binary_little_endian 1.0", "element vertex 20"]
        lines += ["property float " + name for name in names] + ["end_header", ""]
        (folder / "point_cloud.ply").write_bytes("\\n".join(lines).encode() + table.tobytes())
'''


def make_bench(folder: Path, splats: bool = True, exports: bool = True) -> Bench:
    """A bench with the capture ``toys`` and the method ``colour``, that exports splats, a file that is none, or nothing."""
    bench = Bench(folder / "bench")
    bench.make()
    make_capture(bench.captures_folder / "toys")
    code = make_method(bench.methods_folder / "colour") / "method.py"
    begin, mark, _ = code.read_text().partition("    def export")
    assert mark
    if not exports:
        code.write_text(begin)
    elif splats:
        code.write_text(begin + SPLATS_CODE)
    return bench


def run_on(bench: Bench, mode: str = "plain", steps: int = 20) -> RunRow:
    """A run of ``colour`` on ``toys``, seen through."""
    request = RunRequest(
        methods=("colour",), budget=Budget(steps=steps), settings=(f"mode={mode}",), device="cpu"
    )
    return work(bench, plan(bench, bench.capture("toys"), request), request.handling, Watcher())[0]


def read(folder: Path, **content: bytes) -> Content | None:
    """``read(folder, mesh=…)``: what is read from ``mesh.ply`` and whatever else there is."""
    for name, data in content.items():
        (folder / f"{name}.ply").write_bytes(data)
    return read_exported(folder, [f"{name}.ply" for name in content])


@pytest.fixture
def values() -> np.ndarray:
    """Fifty Gaussians as the method ``splat`` keeps them."""
    generator = np.random.default_rng(0)
    model = np.zeros((ROWS, 50), np.float32)
    model[MEAN] = generator.normal(0, 3, (3, 50))
    model[SCALE] = generator.uniform(-5, 1, (3, 50))
    model[QUATERNION] = generator.normal(size=(4, 50)) * 3
    model[OPACITY] = generator.normal(0, 2, 50)
    model[HARMONIC] = generator.normal(0, 0.2, (48, 50))
    return model


def mesh_ply(triangles: list[list[int]], corners: int = 3) -> bytes:
    """A unit square's four corners, red, and triangles of them."""
    fields = [*((axis, "<f4") for axis in "xyz"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.zeros(4, np.dtype(fields))
    vertices["x"], vertices["y"], vertices["red"] = [0, 1, 1, 0], [0, 0, 1, 1], 200
    faces = np.zeros(len(triangles), [("corners", "u1"), ("vertices", "<i4", 3)])
    faces["corners"], faces["vertices"] = corners, triangles
    head = f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n".encode()
    return encode_vertices(vertices).replace(b"end_header\n", head) + faces.tobytes()


SQUARE = mesh_ply([[0, 1, 2], [0, 2, 3]])
CLOUD = encode_points(np.eye(3), np.full((3, 3), 7, np.uint8))


def test_splats_come_back_as_they_were_exported(values: np.ndarray, tmp_path: Path) -> None:
    splats = read(tmp_path, scene=splat_ply(values))
    assert isinstance(splats, Splats) and len(splats) == splats.total == 50
    np.testing.assert_array_equal(splats.means, values[MEAN].T)
    w, x, y, z = values[QUATERNION].astype(np.float64)
    turns = Rotation.from_quat(np.stack([x, y, z, w], 1)).as_matrix()
    variances = np.exp(2 * values[SCALE].T.astype(np.float64))
    expected = np.einsum("nij,nj,nkj->nik", turns, variances, turns)
    np.testing.assert_allclose(splats.covariances(), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(splats.opacities, 1 / (1 + np.exp(-values[OPACITY])), rtol=1e-6)
    red = (0.5 + 0.2820948 * values[HARMONIC][0]).clip(0, 1)  # that of degree 0 comes first
    np.testing.assert_allclose(splats.colours[:, 0], red, atol=1e-6)


def test_splats_without_finite_numbers_are_left_out(values: np.ndarray, tmp_path: Path) -> None:
    values[0, 0], values[SCALE][0, 1] = np.nan, np.inf
    values[QUATERNION] = np.where(np.arange(50) == 2, 0, values[QUATERNION])
    splats = read(tmp_path, scene=splat_ply(values))
    assert isinstance(splats, Splats) and (len(splats), splats.total) == (47, 50)
    assert np.isfinite(splats.covariances()).all()


def test_the_most_visible_splats_are_kept_in_their_order(values: np.ndarray, tmp_path: Path) -> None:
    values[SCALE], values[OPACITY] = -3.0, -5.0
    values[SCALE][:2, 30] = 0.0  # large
    values[OPACITY, 10] = 5.0  # opaque
    values[SCALE][2, 20] = 1.0  # a needle: long, and of a small cross-section still
    splats = read(tmp_path, scene=splat_ply(values))
    assert isinstance(splats, Splats)
    np.testing.assert_array_equal(splats.most_visible(2).means, values[MEAN].T[[10, 30]])
    np.testing.assert_array_equal(splats.most_visible(5).means, values[MEAN].T[[0, 1, 10, 20, 30]])
    assert splats.most_visible(50) is splats and splats.most_visible(3).total == 50


def test_splats_are_shown_before_a_mesh_and_a_mesh_before_points(values: np.ndarray, tmp_path: Path) -> None:
    assert isinstance(read(tmp_path, a=CLOUD, b=SQUARE, c=splat_ply(values)), Splats)
    assert isinstance(read(tmp_path, a=CLOUD, b=SQUARE), Mesh)
    points = read(tmp_path, a=CLOUD)
    assert isinstance(points, Points) and points.colours.tolist() == [[7, 7, 7]] * 3
    assert read_exported(tmp_path, ["picture.png"]) is None


def test_a_mesh_comes_back_and_becomes_an_unlit_glb(tmp_path: Path) -> None:
    mesh = read(tmp_path, mesh=SQUARE)
    assert isinstance(mesh, Mesh) and mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    data = glb(mesh.vertices, mesh.triangles, mesh.colours)
    magic, version, size, length, kind = struct.unpack("<IIIII", data[:20])
    assert (magic, version, size, kind) == (0x46546C67, 2, len(data), 0x4E4F534A)
    document = json.loads(data[20 : 20 + length])
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]
    at = 20 + length + 8
    colours = np.frombuffer(data, "<f4", 16, at + document["bufferViews"][1]["byteOffset"]).reshape(4, 4)
    np.testing.assert_allclose(colours[:, 0], ((200 / 255 + 0.055) / 1.055) ** 2.4, rtol=1e-6)
    assert document["accessors"][2]["count"] == 6 and len(data) - at == document["buffers"][0]["byteLength"]


@pytest.mark.parametrize("most", [500, 2000])
def test_a_coarser_mesh_is_the_same_surface_with_fewer_triangles(most: int) -> None:
    count = 60
    x, y = np.meshgrid(np.linspace(0, 1, count), np.linspace(0, 1, count))
    places = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    index = np.arange(count * count).reshape(count, count)
    corners = [index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]]
    halves = [np.stack([corners[i] for i in half], -1).reshape(-1, 3) for half in ((0, 1, 2), (0, 2, 3))]
    triangles = np.concatenate(halves)
    mesh = Mesh(places, triangles, np.full((len(places), 3), 9, np.uint8), len(triangles))
    coarse = mesh.coarser(most)
    assert most / 4 < len(coarse.triangles) <= most and coarse.total == len(triangles)
    a, b, c = (coarse.vertices[coarse.triangles[:, corner]] for corner in range(3))
    areas = np.cross(b - a, c - a)[:, 2] / 2
    assert (areas > 0).all() and areas.sum() == pytest.approx(1, abs=0.15)  # none turned over, none twice
    assert (coarse.colours == 9).all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"ply of colour [0.5]", "not a PLY file"),
        (mesh_ply([[0, 1, 4]]), "whose vertices are not there"),
        (mesh_ply([[0, 1, -1]]), "whose vertices are not there"),
        (mesh_ply([[0, 1, 2]], corners=4), "no triangles"),
        (SQUARE[:-1], "2 triangles announced"),
        (SQUARE.replace(b"element face 2", b"element face -2"), "damaged header"),
        (CLOUD[:-1], "3 vertices announced"),
        (
            encode_points(np.full((2, 3), np.nan), np.zeros((2, 3), np.uint8)),
            "none of its 2 points is finite",
        ),
    ],
)
def test_what_a_method_writes_is_not_believed(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match=says) as caught:
        read(tmp_path, scene=data)
    assert "\n" not in str(caught.value)


def test_no_link_is_followed_to_what_a_method_exported(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.ply").write_bytes(SQUARE)
    (folder := tmp_path / "out").mkdir()
    (folder / "mesh.ply").symlink_to(tmp_path / "elsewhere.ply")
    with pytest.raises(TurntableError, match="can't be shown"):
        read_exported(folder, ["mesh.ply"])


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_spoiled_byte_is_shown_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(data.draw(st.sampled_from([SQUARE, CLOUD])))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TurntableError):
        content = read(tmp_path_factory.mktemp("ply"), scene=bytes(whole))
        if isinstance(content, Mesh):
            assert np.isfinite(content.vertices).all() and content.triangles.max() < len(content.vertices)


def test_cameras_stand_at_a_known_distance_whatever_the_captures_units(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "toys")
    frame = frame_of(capture)
    centres = frame.points(np.array([view.camera.centre for view in capture.views]))
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), DISTANCE, rtol=1e-6)
    np.testing.assert_allclose(frame.points(np.zeros(3)), 0, atol=1e-9)  # what they look at
    assert frame.up @ [0, 0, 1] > 0.9


def test_a_cameras_pose_is_told_as_viser_wants_it() -> None:
    turn = Rotation.from_euler("xyz", [0.3, -0.5, 0.7]).as_matrix()
    camera = Camera(24, 16, 20.0, 10.0, 12.0, 8.0, turn, np.zeros(3))
    w, x, y, z = wxyz_of(camera)
    np.testing.assert_allclose(Rotation.from_quat([x, y, z, w]).as_matrix(), turn.T, atol=1e-12)
    assert np.tan(fov_of(camera) / 2) == pytest.approx(8 / 10)


class Told(Watcher):
    """Counts how often a method was asked to export."""

    def __init__(self) -> None:
        self.exports = 0

    def run_doing(self, run: str, what: str, done: int, total: int) -> None:
        self.exports += what == "exporting"


def test_a_scene_is_made_once_for_a_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bench, told = make_bench(tmp_path), Told()
    row = run_on(bench)
    capfd.readouterr()
    page = static_scene(bench, row, told)
    assert capfd.readouterr() == ("", "")  # viser's greeting, say
    assert isinstance(page, Path)
    first = page.read_bytes()
    assert static_scene(bench, row, told) == page
    assert page.read_bytes() == first and told.exports == 1
    about = page.with_name("scene.json")
    assert json.loads(about.read_text())["steps"] == 20
    about.write_text('{"format": 0, "steps": 20}')
    assert static_scene(bench, row, told) == page and told.exports == 2


def test_why_there_is_no_scene_is_said_in_words(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "none", exports=False)
    row = run_on(bench)
    assert "exports no PLY file" in str(static_scene(bench, row, Watcher()))
    assert static_scene(bench, replace(row, state=State.FAILED), Watcher()) == "The run failed."
    other = str(static_scene(bench, replace(row, capture_hash="0"), Watcher()))
    assert other == "it couldn't be made; turntable view toys-colour-1 says why"
    shutil.rmtree(bench.runs_folder / row.id / "checkpoint")
    assert "couldn't be made" in str(static_scene(bench, row, Watcher()))
    odd = make_bench(tmp_path / "odd", splats=False)  # its file is a PLY by its name alone
    assert "couldn't be made" in str(static_scene(odd, run_on(odd), Watcher()))


SPOILS_CODE = '''
    def export(self, folder):
        """Tries to write to the checkpoint that it was loaded from."""
        with (folder.parent / "checkpoint" / "0000000020" / "method" / "colour.npy").open("r+b") as file:
            file.write(b"spoiled")
'''


@pytest.mark.skipif(sandbox.why_not() is not None, reason=f"there are no walls: {sandbox.why_not()}")
def test_a_method_that_is_looked_at_cant_write_to_its_checkpoint(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    code = bench.methods_folder / "colour" / "method.py"
    code.write_text(code.read_text().replace(SPLATS_CODE, SPOILS_CODE))
    row = run_on(bench)
    assert "couldn't be made" in str(static_scene(bench, row, Watcher()))
    assert "Read-only file system" in (bench.runs_folder / row.id / "view.log").read_text()
    newest, damaged = checkpoint.newest(bench.runs_folder / row.id / "checkpoint")
    assert newest is not None and damaged == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    (folder := tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


VISERS_OWN = "computeBoundingSphere(): Computed radius is NaN"
"""What viser 1.1's client says of its quads for splats, which have two coordinates each."""


def test_in_a_sandboxed_frame_splats_are_in_order_and_nothing_is_asked_of_the_network(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = served
    capture = make_capture(tmp_path / "toys")
    frame = frame_of(capture)
    towards = (frame.eye - frame.target) / np.linalg.norm(frame.eye - frame.target)
    near = (
        np.arange(2000) < 1000
    )  # they are red, and come first: in the order of the file blue would lie over them
    places = np.where(near, 6.0, -6.0)[:, None] * towards + np.random.default_rng(0).normal(0, 0.5, (2000, 3))
    splats = Splats(
        frame.origin + places / frame.scale,
        np.full((2000, 3), 0.5 / frame.scale),
        np.tile([1.0, 0, 0, 0], (2000, 1)),
        np.where(near[:, None], [1.0, 0, 0], [0, 0, 1.0]).astype(np.float32),
        np.full(2000, 0.9, np.float32),
        2000,
    )
    (folder / "scene.html").write_text(as_html(splats, capture, "two balls"))
    style = "position:fixed;inset:0;width:100%;height:100%"
    frame_page = (
        f'<link rel="icon" href="data:,"><iframe sandbox="allow-scripts" src="scene.html" style="{style}">'
    )
    (folder / "index.html").write_text(f"<!doctype html>{frame_page}</iframe>")
    asked, errors = [], []
    with chromium(draws_3d=True) as browser:
        page = browser.new_page(viewport={"width": 400, "height": 300})
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(f"{address}/index.html")
        for _ in range(40):
            page.wait_for_timeout(250)
            red, green, blue = middle_of(page.screenshot(timeout=60_000))
            if red > 150 and blue < 100:
                break
    assert red > 150 and max(green, blue) < 100
    assert {url for url in asked if not url.startswith(("blob:", "data:"))} == {
        f"{address}/index.html",
        f"{address}/scene.html",
    }
    assert [text for text in errors if VISERS_OWN not in text] == []


def middle_of(png: bytes) -> tuple[int, int, int]:
    """The colour in the middle of a screenshot."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        red, green, blue = picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2))  # type: ignore[misc]
    return int(red), int(green), int(blue)
