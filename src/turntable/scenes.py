"""What viser shows of a run: what its method exports, and the capture's cameras; and that as one HTML file for the page.

Notation: viser's world is the capture's, moved and scaled (:class:`Frame`), since its client cuts off what is near or
far by fixed distances, and keeps splats' covariances in half precision.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from . import files
from .bench import Bench
from .captures.capture import Capture, CaptureView
from .captures.paths import focus_of, up_of
from .errors import TurntableError, disk_error
from .exporting import loaded_beside, newest_checkpoint
from .record import RunRow, State
from .scene_files import Content, Mesh, Points, Splats, read_exported
from .turns.watcher import Watcher
from .worker.contract import Camera

if TYPE_CHECKING:
    import viser

FORMAT = 1
"""Counts the changes of the page's scenes, so that one that an older Turntable made is made again."""

DISTANCE = 20.0
"""How far, in viser's units, cameras are from what they look at: there half precision (6e-5 to 65504) holds the variance of
splats from 1/2,500 of that distance to ten times it, well inside of the client's clipping planes."""

NEAR, FAR = 0.05, 10_000.0
GREATEST_VARIANCE = 60_000.0


@dataclass(frozen=True)
class Most:
    """How much of a scene is shown at most.

    Args:
        splats, triangles, points: of what the method made.
        photos: thumbnails at the held-out cameras.
        cameras: training cameras.
    """

    splats: int
    triangles: int
    points: int
    photos: int
    cameras: int


PAGE = Most(splats=80_000, triangles=120_000, points=100_000, photos=24, cameras=200)
"""For the page: two to four megabytes beside the client's 0.8, which a phone can load, keep and sort as it turns."""

LIVE = Most(splats=1_000_000, triangles=2_000_000, points=1_000_000, photos=100, cameras=1000)
"""For ``view``: 32 MB for a million splats, over loopback."""

PHOTO_SIDE = 128
"""The longer side of a thumbnail, in pixels."""

HELD_OUT, TRAINING = (230, 110, 20), (140, 140, 140)
"""Colours of cameras, sRGB."""


@dataclass(frozen=True, eq=False)
class Frame:
    """From the capture's world to viser's: ``x_viser = scale (x − origin)``; and how it is looked at at first.

    Args:
        origin: ``float64[3]``, what the cameras look at, in the capture's world.
        scale: viser's units to one of the capture's.
        up: ``float64[3]``, length 1.
        eye: ``float64[3]``, where the first look is from, in viser's world.
        target: ``float64[3]``, what it is at.
    """

    origin: np.ndarray
    scale: float
    up: np.ndarray
    eye: np.ndarray
    target: np.ndarray

    def points(self, points: np.ndarray) -> np.ndarray:
        """``float64[…, 3]`` of the capture's world in viser's."""
        return (points - self.origin) * self.scale


def frame_of(capture: Capture) -> Frame:
    """The frame in which a capture is shown: the first look is over the shoulder of its first held-out camera."""
    cameras = [view.camera for view in capture.views]
    centres = np.array([camera.centre for camera in cameras])
    first = (capture.held_out or capture.views)[0].camera
    focus = focus_of(capture)
    up, _ = up_of(capture, focus)
    if focus is None:  # they look outwards, from within what they see
        spread = float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
        scale = DISTANCE / (4 * spread or 1.0)
        frame = Frame(centres.mean(0), scale, up, np.zeros(3), np.zeros(3))
        eye = (
            frame.points(first.centre) + 0.1 * DISTANCE * first.forward
        )  # in front of that camera's own frustum
        return Frame(frame.origin, scale, up, eye, eye + 0.5 * DISTANCE * first.forward)
    scale = DISTANCE / float(np.median(np.linalg.norm(centres - focus, axis=1)))
    behind = (first.centre - focus) * scale
    eye = 1.35 * behind + 0.25 * DISTANCE * up
    return Frame(focus, scale, up, eye, np.zeros(3))


def export_content(bench: Bench, run: str, watcher: Watcher, walls: bool) -> tuple[Content | None, int]:
    """What a run's method exports from its newest checkpoint, and the steps of that; None where it exports no such thing.

    Raises:
        TurntableError: as :func:`turntable.exporting.loaded_beside`, or what it exports can't be written or read.
    """
    try:
        with loaded_beside(bench, run, watcher, walls) as method:
            steps = int(method.saved.state["steps"])
            watcher.run_doing(run, "exporting", 0, 0)
            method.worker.send("export", folder=str(method.scratch))
            names = method.worker.await_("exported")["files"]
            return read_exported(method.scratch, names), steps
    except OSError as error:
        raise disk_error(error, f"what run {run} exports") from error


def capture_of(bench: Bench, row: RunRow) -> Capture:
    """The capture that a run was on.

    Raises:
        TurntableError: it is gone, or another has its name now.
    """
    capture = bench.capture(row.capture)
    if capture.hash != row.capture_hash:
        raise TurntableError(f"Run {row.id} was on another capture that was called {row.capture} before.")
    return capture


def sparse_points(capture: Capture) -> Points | None:
    """The capture's own sparse points; None where it has none."""
    positions, colours = capture.points()
    return Points(positions, colours, len(positions)) if len(positions) else None


def add_content(scene: viser.SceneApi, name: str, content: Content, frame: Frame, most: Most) -> str:
    """Put what a method made into a scene; how much of it is there, in words.

    Args:
        scene: viser's.
        name: the node's.
        content: what.
        frame: from its world to viser's.
        most: how much.
    """
    if isinstance(content, Splats):
        shown = content.most_visible(most.splats)
        add_splats(scene, name, shown, frame)
        return _amount("splats", len(shown), shown.total)
    if isinstance(content, Mesh):
        coarse = content.coarser(most.triangles)
        scene.add_glb(name, glb(frame.points(coarse.vertices), coarse.triangles, coarse.colours))
        return _amount("triangles", len(coarse.triangles), coarse.total)
    points = content.fewer(most.points)
    scene.add_point_cloud(
        name,
        frame.points(points.positions).astype(np.float32),
        points.colours,
        point_size=DISTANCE / 400,
        point_shape="circle",
        point_shading="flat",
        precision="float32",
    )
    return _amount("points", len(points.positions), points.total)


def _amount(what: str, shown: int, total: int) -> str:
    return f"{total:,} {what}" if shown == total else f"{shown:,} of {total:,} {what}"


def add_splats(scene: viser.SceneApi, name: str, splats: Splats, frame: Frame) -> None:
    """Splats in viser's world; one so large that half precision can't hold it becomes as large as it can."""
    covariances = splats.covariances() * frame.scale**2
    greatest = np.abs(covariances).max(axis=(1, 2))
    covariances *= np.minimum(1.0, GREATEST_VARIANCE / np.maximum(greatest, 1e-12))[:, None, None]
    scene.add_gaussian_splats(
        name,
        centers=frame.points(splats.means).astype(np.float32),
        covariances=covariances,
        rgbs=splats.colours,
        opacities=splats.opacities[:, None],
    )


def glb(vertices: np.ndarray, triangles: np.ndarray, colours: np.ndarray) -> bytes:
    """A binary glTF 2.0 file of one mesh that isn't lit: the photos' light is in its colours already.

    Trimesh writes colours as glTF's linear ones without making them so, and knows no unlit material.

    Args:
        vertices: ``float64[V, 3]``.
        triangles: ``int64[F, 3]``.
        colours: ``uint8[V, 3]``, sRGB.
    """
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    rgba = np.c_[linear, np.ones(len(linear))]
    return _gltf({"POSITION": vertices, "COLOR_0": rgba}, triangles, {})


def picture_glb(picture: np.ndarray, width: float, height: float, opacity: float) -> bytes:
    """A binary glTF 2.0 file of a picture, ``uint8[H, W, 3]``, around the origin, that lets through what is behind it.

    It does so in a random share of its points: what is transparent is drawn before splats and hides those behind it.

    Args:
        picture: ``uint8[H, W, 3]``, upright for a camera that looks along z with y down.
        width, height: its size.
        opacity: the share of points that are the picture's, 0 to 1.
    """
    points = np.random.default_rng(0).random(
        picture.shape[:2]
    )  # seeded: no flicker while the opacity changes
    alpha = np.where(points < opacity, 255, 0).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(np.dstack([picture, alpha])).save(encoded, "PNG", compress_level=1)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * [width / 2, height / 2, 0]
    texture = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    material = {
        "alphaMode": "MASK",
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}},
    }
    parts = {"POSITION": corners, "TEXCOORD_0": texture}
    return _gltf(parts, np.array([[0, 1, 2], [0, 2, 3]]), material, encoded.getvalue())


def _gltf(
    attributes: dict[str, np.ndarray], triangles: np.ndarray, material: dict[str, Any], png: bytes = b""
) -> bytes:
    """One mesh, unlit and seen from both sides; ``png`` is its texture, its points as they are, if there is one."""
    arrays = [np.ascontiguousarray(values, "<f4") for values in attributes.values()]
    blobs = [array.tobytes() for array in arrays] + [
        triangles.astype("<u4").tobytes(),
        png + bytes(-len(png) % 4),
    ]
    offsets = np.cumsum([0, *map(len, blobs)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(blob)}
        for start, blob in zip(offsets, blobs, strict=False)
        if blob
    ]
    accessors: list[dict[str, Any]] = [
        {"bufferView": index, "componentType": 5126, "count": len(array), "type": f"VEC{array.shape[1]}"}
        for index, array in enumerate(arrays)
    ]
    accessors[0] |= {"min": arrays[0].min(0).tolist(), "max": arrays[0].max(0).tolist()}
    indices = len(arrays)
    accessors.append(
        {"bufferView": indices, "componentType": 5125, "count": triangles.size, "type": "SCALAR"}
    )
    numbers = {name: index for index, name in enumerate(attributes)}
    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "buffers": [{"byteLength": offsets[-1]}],
        "bufferViews": views,
        "accessors": accessors,
        "materials": [{"doubleSided": True, "extensions": {"KHR_materials_unlit": {}}, **material}],
        "meshes": [{"primitives": [{"attributes": numbers, "indices": indices, "material": 0}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    if png:
        nearest, to_edge = 9728, 33071
        document["images"] = [{"bufferView": indices + 1, "mimeType": "image/png"}]
        document["samplers"] = [
            {"magFilter": nearest, "minFilter": nearest, "wrapS": to_edge, "wrapT": to_edge}
        ]
        document["textures"] = [{"source": 0, "sampler": 0}]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(blobs)
    chunks = (
        struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(body), 0x004E4942) + body
    )
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def fov_of(camera: Camera) -> float:
    """The vertical field of view of a camera whose principal point is taken to be in the middle, in radians."""
    return 2 * float(np.arctan(camera.height / (2 * camera.fy)))


def wxyz_of(camera: Camera) -> np.ndarray:
    """The camera's rotation in the world as a quaternion w, x, y, z."""
    x, y, z, w = Rotation.from_matrix(camera.R.T).as_quat()
    return np.array([w, x, y, z])


def add_cameras(
    scene: viser.SceneApi, capture: Capture, frame: Frame, most: Most
) -> dict[str, viser.CameraFrustumHandle]:
    """Training cameras as grey lines, the held-out ones in colour with their photos; these are returned, by view's name."""
    size = _frustum_size(capture, frame)
    training = _evenly(capture.training, most.cameras)
    if training:
        lines = np.concatenate([_frustum_lines(view.camera, frame, size) for view in training])
        scene.add_line_segments(
            "/training cameras", points=lines.astype(np.float32), colors=TRAINING, thickness=size / 60
        )
    with_photo = {view.name for view in _evenly(capture.held_out, most.photos)}
    return {
        view.name: scene.add_camera_frustum(
            f"/held-out cameras/{number:04d}",
            fov=fov_of(view.camera),
            aspect=(view.camera.width / view.camera.fx) / (view.camera.height / view.camera.fy),
            scale=size,
            thickness=size / 40,
            color=HELD_OUT,
            image=_thumbnail(view) if view.name in with_photo else None,
            jpeg_quality=80,
            wxyz=wxyz_of(view.camera),
            position=frame.points(view.camera.centre),
        )
        for number, view in enumerate(capture.held_out)
    }


def _evenly(views: Sequence[CaptureView], most: int) -> list[CaptureView]:
    if len(views) <= most:
        return list(views)
    return [views[index] for index in np.linspace(0, len(views) - 1, most).round().astype(int)]


def _frustum_size(capture: Capture, frame: Frame) -> float:
    """About a third of the way from a camera to its neighbour, within reason."""
    centres = frame.points(np.array([view.camera.centre for view in capture.views]))
    apart = (
        np.linalg.norm(centres[:, None] - centres[None], axis=2) if len(centres) <= 2000 else np.zeros((1, 1))
    )
    np.fill_diagonal(apart, np.inf)
    nearest = float(np.median(apart.min(1)))
    return float(np.clip(nearest / 3 if np.isfinite(nearest) else 0, DISTANCE / 40, DISTANCE / 12))


def _frustum_lines(camera: Camera, frame: Frame, size: float) -> np.ndarray:
    """``float64[8, 2, 3]``: from the camera to the corners of its picture, and around that."""
    rays = np.array(
        [
            [(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0]
            for x, y in ((0, 0), (camera.width, 0), (camera.width, camera.height), (0, camera.height))
        ]
    )
    eye = frame.points(camera.centre)
    corners = eye + size * rays @ camera.R
    starts = np.concatenate([np.tile(eye, (4, 1)), corners])
    return np.stack([starts, np.concatenate([corners, np.roll(corners, -1, axis=0)])], axis=1)


def _thumbnail(view: CaptureView) -> np.ndarray:
    picture = Image.fromarray(view.image())
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return np.asarray(picture)


@contextmanager
def serving(host: str, port: int, title: str) -> Iterator[viser.ViserServer]:
    """A viser server, ended afterwards, that prints nothing and offers no tunnel to the outside.

    Args:
        host: the address that it is bound to.
        port: the first port that is tried; 0 for any.
        title: what its panel is called.
    """
    import rich
    import viser

    class Server(viser.ViserServer):
        """Viser's clients can ask for a tunnel through a server of viser's makers: what is looked at stays here."""

        def request_share_url(self, verbose: bool = True) -> str | None:
            return None

    console = (
        rich.get_console()
    )  # viser tells it where it listens, and that it has ended: so do we, where there is need
    quiet, console.quiet = console.quiet, True
    try:
        server = Server(host=host, port=port, label=title, verbose=False)
        try:
            server.gui.configure_theme(show_logo=False, show_share_button=False)
            yield server
        finally:
            server.stop()
    finally:
        console.quiet = quiet


def static_scene(bench: Bench, row: RunRow, watcher: Watcher, walls: bool = True) -> Path | str:
    """What a run has made as one HTML file, in which one looks around; it needs to be served, but no server of ours.

    It is made once for a checkpoint, and kept in the run's folder, ``scene/``.

    Args:
        bench: where the run is.
        row: the run.
        watcher: told how it goes.
        walls: whether the method is walled in, where that can be done.

    Returns:
        The file, or in words why there is none.
    """
    if row.state is State.FAILED:
        return "The run failed."
    try:
        capture = capture_of(bench, row)
        folder, saved = newest_checkpoint(bench, row.id)
        page, about = folder.path / "scene" / "scene.html", folder.path / "scene" / "scene.json"
        wanted = {"format": FORMAT, "steps": int(saved.state["steps"])}
        kept = _kept(about)
        if not (page.is_file() and kept == wanted):
            content, steps = export_content(bench, row.id, watcher, walls)
            if content is None:
                return f"The method {row.method} exports no PLY file to look around in."
            page.parent.mkdir(exist_ok=True)
            about.unlink(missing_ok=True)
            files.write_text(page, as_html(content, capture, row.id))
            files.write_json(about, {"format": FORMAT, "steps": steps})
    except TurntableError:  # whose words may name folders of this machine; the page is sent around
        return f"it couldn't be made; turntable view {row.id} says why"
    return page


def _kept(about: Path) -> object:
    try:
        return files.read_json(about)
    except TurntableError:
        return None


def as_html(content: Content, capture: Capture, title: str) -> str:
    """One HTML file in which a scene and the capture's cameras are looked at."""
    frame = frame_of(capture)
    with serving("127.0.0.1", 0, title) as server:
        set_up(server, frame)
        add_content(server.scene, "/scene", content, frame, PAGE)
        add_cameras(server.scene, capture, frame, PAGE)
        return with_sorting(server.scene.as_html())


def with_sorting(page: str) -> str:
    """Viser's page, so that it sorts splats where it has no origin, too: see ``scenes.js``."""
    script = Path(__file__).with_name("scenes.js").read_text(encoding="utf-8")
    return page.replace("<head>", f"<head><script>\n{script}</script>", 1)


def set_up(server: viser.ViserServer, frame: Frame) -> None:
    """Which way is up, and the first look."""
    server.scene.set_up_direction(frame.up)
    camera = server.initial_camera
    camera.position, camera.look_at, camera.up = frame.eye, frame.target, frame.up
    camera.near, camera.far = NEAR, FAR
    camera.fov = float(np.radians(50))
