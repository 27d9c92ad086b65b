"""``turntable view``: looking around in what a run has made, from any held-out view, while it trains, too.

Notation: a *look* is a pose of viser's camera. That one looks along the middle of its picture, always: a photo's principal
point that lies elsewhere can't be had. Overlays lie where the photo's camera has its picture, and so fit the scene anyway.
"""

from __future__ import annotations

import html
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp

from .bench import Bench
from .captures.capture import Capture, CaptureView
from .errors import TurntableError
from .jobs import method_of
from .record import RunRow, Score
from .run import RunFolder
from .scenes import (
    DISTANCE,
    LIVE,
    Frame,
    add_cameras,
    add_content,
    capture_of,
    export_content,
    fov_of,
    frame_of,
    picture_glb,
    serving,
    set_up,
    sparse_points,
    wxyz_of,
)
from .tasks.renderings import read_answer
from .tasks.views import answers_folder
from .turns.python_run import MARKS
from .turns.watcher import Watcher
from .worker.contract import Camera

if TYPE_CHECKING:
    import viser

FIRST_PORT = 8080
POLL_S = 0.5
"""How often the run is looked at."""

SHARE = 0.1
"""A checkpoint is loaded and exported at most in this share of the time: beside a run on the same processor, that is what
looking costs it."""

OVERLAY_AT = DISTANCE / 100
"""How far before a camera its overlay hangs: nearer than anything of the scene, further than viser's near plane."""

OVERLAY_SIDE = 1200
"""The longer side of an overlay, in points that are opaque or not: about as many as a window has; more take long to send."""

FLIGHT_S, FLIGHT_STEPS = 0.4, 12
NOWHERE = "(nowhere)"


@dataclass(frozen=True)
class Address:
    """Where the viewer listens.

    Args:
        host: an address of this machine.
        port: None for the first that is free from 8080 upward.
    """

    host: str = "127.0.0.1"
    port: int | None = None


@dataclass(frozen=True, eq=False)
class Look:
    """A pose of viser's camera, in its world.

    Args:
        position: ``float64[3]``.
        wxyz: ``float64[4]``, its rotation in the world.
        fov: the vertical field of view, radians.
    """

    position: np.ndarray
    wxyz: np.ndarray
    fov: float

    @property
    def forward(self) -> np.ndarray:
        """``float64[3]``, length 1."""
        w, x, y, z = self.wxyz
        return Rotation.from_quat([x, y, z, w]).as_matrix()[:, 2]


def look_from(camera: Camera, frame: Frame, aspect: float) -> Look:
    """The look from where a photo was taken, that shows all of its picture.

    Args:
        camera: the photo's.
        frame: from its world to viser's.
        aspect: width over height of the window. Where it is narrower than the photo, the photo's width fills it.
    """
    across = camera.width / (2 * camera.fx)
    fov = max(fov_of(camera), 2 * float(np.arctan(across / aspect)))
    return Look(frame.points(camera.centre), wxyz_of(camera), fov)


def between(start: Look, end: Look, share: float) -> Look:
    """The look at ``share``, 0 to 1, of the way from one to another."""
    if share >= 1:
        return end
    turn = Slerp([0, 1], Rotation.from_quat([[*look.wxyz[1:], look.wxyz[0]] for look in (start, end)]))
    x, y, z, w = turn(share).as_quat()
    return Look(
        (1 - share) * start.position + share * end.position,
        np.array([w, x, y, z]),
        (1 - share) * start.fov + share * end.fov,
    )


def off_the_middle(camera: Camera) -> str | None:
    """What is said of a principal point that viser's camera can't have; None within a hundredth of the middle."""
    right, down = camera.cx - camera.width / 2, camera.cy - camera.height / 2
    if max(abs(right) / camera.width, abs(down) / camera.height) < 0.01:
        return None
    return (
        f"The camera's principal point lies {right:+.1f} px right and {down:+.1f} px down of the middle; viser looks along "
        "the middle, so that all is shifted by that. The overlay is, too."
    )


def describe_scores(scores: Sequence[Score], view: str) -> list[str]:
    """A line for each score of a view at the last share of the budget at which the run was scored."""
    of_view = [score for score in scores if score.item == view]
    last = max((score.mark for score in of_view), default=0.0)
    lines = [f"{score.metric} {score.value:.4g}" for score in of_view if score.mark == last]
    if not lines:
        return ["Not scored yet."]
    return [*lines, *([] if last == 1 else [f"(at {last:.1%} of the budget)"])]


def describe_run(row: RunRow, shown_steps: int | None) -> list[str]:
    """How far a run is, and which of its steps are looked at."""
    state = f"{row.state.value}: {row.cause}" if row.cause else row.state.value
    lines = [
        f"{row.method} on {row.capture}: {state}",
        f"{row.steps} steps, {row.device_seconds:.1f} device seconds, {row.fraction:.0%} of the budget",
    ]
    if shown_steps is not None:
        lines.append(f"Shown: after {shown_steps} steps")
    return lines


def as_markup(lines: Sequence[str]) -> str:
    """Lines of text as HTML: whatever a method or a photo's name says stays text."""
    return (
        '<div style="padding:0 1em;overflow-wrap:anywhere">' + "<br>".join(map(html.escape, lines)) + "</div>"
    )


def checked_address(address: Address) -> int:
    """The port at which viser is to begin its search.

    Raises:
        TurntableError: the host isn't this machine's, or the port is taken or none.
    """
    if address.port is not None and not 1 <= address.port <= 65535:
        raise TurntableError(f"--port is a number from 1 to 65535, not {address.port}.")
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            address.host, address.port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        port = "" if address.port is None else f", port {address.port}"
        raise TurntableError(
            f"The viewer can't listen on {address.host}{port} ({error.strerror}); choose another --host or --port."
        ) from None
    return address.port or FIRST_PORT


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def view(
    bench: Bench,
    run: str,
    address: Address,
    watcher: Watcher,
    opened: Callable[[str], None],
    walls: bool = True,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Show a run until Ctrl-C.

    Args:
        bench: where the run is.
        run: its id.
        address: where to listen.
        watcher: told how it goes.
        opened: called with the viewer's address when it can be opened.
        walls: whether the method is walled in, where that can be done.
        until: asked again and again whether to end.

    Raises:
        TurntableError: there is no such run, it is a program's, has ended without a checkpoint, or can't be exported; or the
            address can't be had.
    """
    row, folder = bench.row(run), bench.run_folder(run)
    method = method_of(bench, folder.asked())
    if method.is_program:
        raise TurntableError(
            f"Only what Python methods made can be looked at; {method.name} is a program, and what it made lies in "
            f"{folder.path / 'program' / 'out'}."
        )
    capture = capture_of(bench, row)
    if newest_steps(folder) is None:
        if row.state.ended:
            raise TurntableError(
                f"Run {run} is {row.state.value} and has no checkpoint: there is nothing to look at."
            )
        watcher.note(
            f"Run {run} has no checkpoint yet: its cameras are shown, and the first one when it comes."
        )
    port = checked_address(address)
    if not is_loopback(address.host):
        watcher.note(
            f"Whoever reaches {address.host} sees the photos and the scene: viser has no password. Ctrl-C ends it."
        )
    with serving(address.host, port, run) as server:
        viewer = _Viewer(server, folder, capture)
        opened(f"http://{address.host}:{server.get_port()}")
        try:
            _follow(viewer, bench, run, watcher, walls, until)
        finally:
            viewer.ended.set()


def newest_steps(folder: RunFolder) -> int | None:
    """The steps of a run's newest checkpoint, by its name alone; None where there is none."""
    root = folder.path / "checkpoint"
    names = [path.name for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []
    return max(map(int, names), default=None)


def _follow(
    viewer: _Viewer, bench: Bench, run: str, watcher: Watcher, walls: bool, until: Callable[[], bool]
) -> None:
    """Exchange the scene whenever there is a newer checkpoint, and keep the status."""
    tried: int | None = None
    rest_until = 0.0
    while not until():
        row = bench.row(run)
        newest = newest_steps(viewer.folder)
        if newest is not None and newest != tried and (time.monotonic() >= rest_until or row.state.ended):
            tried, began = newest, time.monotonic()
            try:
                content, steps = export_content(bench, run, watcher, walls)
            except TurntableError as error:
                if row.state.ended and viewer.shown_steps is None:
                    raise
                viewer.trouble = str(error)
            else:
                tried = max(newest, steps)
                viewer.show(content, steps, row.method)
            rest_until = time.monotonic() + (time.monotonic() - began) * (1 / SHARE - 1)
        viewer.tell(row)
        time.sleep(POLL_S)


class _Viewer:
    """The page: the scene, the cameras, the panel. Its callbacks run in viser's threads."""

    def __init__(self, server: viser.ViserServer, folder: RunFolder, capture: Capture) -> None:
        self.server = server
        self.folder = folder
        self.shown_steps: int | None = None
        self.trouble = ""
        self.ended = threading.Event()
        self._capture = capture
        self._frame = frame_of(capture)
        self._views = {view.name: view for view in capture.held_out}
        self._amount = ""
        self._told = ""
        self._overlay: Any = None
        self._flight = 0
        self._lock = threading.Lock()
        set_up(server, self._frame)
        self._frustums = add_cameras(server.scene, capture, self._frame, LIVE)
        if (points := sparse_points(capture)) is not None:
            add_content(server.scene, "/scene", points, self._frame, LIVE)
        self._amount = "The capture's sparse points, until there is more." if points is not None else ""
        self._build_panel()

    def _build_panel(self) -> None:
        gui = self.server.gui
        self._status = gui.add_html("")
        self._cameras = gui.add_checkbox("Cameras", True)
        self._view = gui.add_dropdown("Held-out view", [NOWHERE, *self._views])
        self._picture = gui.add_dropdown("Overlay", ["photo", "rendering"])
        self._opacity = gui.add_slider("Opacity", min=0.0, max=1.0, step=0.05, initial_value=0.0)
        self._scores = gui.add_html("")
        self._cameras.on_update(lambda _: self._show_cameras())
        self._view.on_update(lambda event: self._go(event.client))
        self._picture.on_update(lambda _: self._lay_over())
        self._opacity.on_update(lambda _: self._lay_over())

    def show(self, content: Any, steps: int, method: str) -> None:
        """Exchange the scene."""
        self.shown_steps, self.trouble = steps, ""
        if content is None:
            self._amount = f"The method {method} exports no PLY file: the capture's sparse points are shown."
            return
        with self.server.atomic():
            self._amount = add_content(self.server.scene, "/scene", content, self._frame, LIVE)

    def tell(self, row: RunRow) -> None:
        """Keep the status: what is sent is what has changed."""
        lines = [*describe_run(row, self.shown_steps), self._amount, self.trouble]
        if self.shown_steps is None and newest_steps(self.folder) is None and not row.state.ended:
            lines.append("There is no checkpoint yet.")
        text = as_markup([line for line in lines if line])
        if text != self._told:
            self._told = self._status.content = text

    def _chosen(self) -> CaptureView | None:
        return self._views.get(self._view.value)

    def _show_cameras(self) -> None:
        """All, or none; never the chosen view's, which would be in the way of what is seen from there."""
        chosen = self._chosen()
        for name, frustum in self._frustums.items():
            frustum.visible = self._cameras.value and (chosen is None or name != chosen.name)
        for node in ("/training cameras",):
            handle = self.server.scene.get_handle_by_name(node)
            if handle is not None:
                handle.visible = self._cameras.value

    def _go(self, client: viser.ClientHandle | None) -> None:
        view = self._chosen()
        self._show_cameras()
        self._lay_over()
        self._scores.content = ""
        if view is None:
            return
        lines = [*self._scores_of(view), off_the_middle(view.camera)]
        self._scores.content = as_markup([line for line in lines if line])
        if client is not None:
            self._fly(client, view)

    def _scores_of(self, view: CaptureView) -> list[str]:
        try:
            return describe_scores(self.folder.scores(), view.name)
        except TurntableError as error:
            return [str(error)]

    def _fly(self, client: viser.ClientHandle, view: CaptureView) -> None:
        """Move a client's camera to where a photo was taken, in a moment; the newest choice counts."""
        self._flight += 1
        flight = self._flight
        camera = client.camera
        end = look_from(view.camera, self._frame, camera.image_width / max(camera.image_height, 1))
        start = Look(np.array(camera.position), np.array(camera.wxyz), camera.fov)
        for step in range(1, FLIGHT_STEPS + 1):
            if flight != self._flight or self.ended.is_set():
                return
            look_along(client, between(start, end, step / FLIGHT_STEPS))
            time.sleep(FLIGHT_S / FLIGHT_STEPS)

    def _lay_over(self) -> None:
        """Hang the photo, or the run's rendering, before the chosen view's camera, as opaque as is asked for."""
        with self._lock:
            view, opacity = self._chosen(), self._opacity.value
            if self._overlay is not None:
                self._overlay.visible = False
            if view is None or opacity == 0:
                return
            picture = view.image() if self._picture.value == "photo" else rendering_of(self.folder, view)
            if picture is None:
                return
            self._overlay = hang(self.server.scene, picture, view.camera, self._frame, opacity)


def look_along(client: viser.ClientHandle, look: Look) -> None:
    """Put a client's camera into a pose; it turns about what lies as far ahead as the scene's middle is."""
    ahead = max(float(-look.position @ look.forward), DISTANCE / 10)
    with client.atomic():
        client.camera.position = look.position
        client.camera.wxyz = look.wxyz
        client.camera.look_at = look.position + ahead * look.forward
        client.camera.fov = look.fov


def rendering_of(folder: RunFolder, view: CaptureView) -> np.ndarray | None:
    """The run's newest rendering of a view, ``uint8[H, W, 3]``; None where there is none."""
    for mark in reversed(MARKS):
        name = (answers_folder(folder.path, mark) / view.image_path.name).relative_to(folder.path).as_posix()
        try:
            picture = read_answer(folder.path, name, view.camera.width, view.camera.height)
        except (FileNotFoundError, ValueError):
            continue
        return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    return None


def hang(
    scene: viser.SceneApi, picture: np.ndarray, camera: Camera, frame: Frame, opacity: float
) -> viser.GlbHandle:
    """A picture where a camera has it, so that it covers what the camera sees.

    Args:
        scene: viser's.
        picture: ``uint8[H, W, 3]``.
        camera: whose picture it is.
        frame: from its world to viser's.
        opacity: 0 to 1.
    """
    picture = at_size(picture, OVERLAY_SIDE)
    middle = np.array(
        [(camera.width / 2 - camera.cx) / camera.fx, (camera.height / 2 - camera.cy) / camera.fy, 1.0]
    )
    width, height = OVERLAY_AT * camera.width / camera.fx, OVERLAY_AT * camera.height / camera.fy
    return scene.add_glb(
        "/overlay",
        picture_glb(picture, width, height, opacity),
        wxyz=wxyz_of(camera),
        position=frame.points(camera.centre) + OVERLAY_AT * middle @ camera.R,
        cast_shadow=False,
        receive_shadow=False,
    )


def at_size(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture with ``side`` pixels on its longer side; pixels that become larger stay squares."""
    scale = side / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(picture).resize(size, how))
