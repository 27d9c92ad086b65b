"""Looking around in a run: the pure parts, what is refused, a viewer beside a run, and one in a real browser."""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsers import chromium
from conftest import make_capture, make_program
from test_scenes import VISERS_OWN, make_bench, run_on
from turntable import viewing
from turntable.bench import Bench
from turntable.errors import TurntableError
from turntable.jobs import RunRequest, plan
from turntable.record import Score
from turntable.run import Budget, RunFolder
from turntable.scenes import fov_of, frame_of, picture_glb, wxyz_of
from turntable.turns import checkpoint
from turntable.turns.watcher import Watcher
from turntable.viewing import Address, as_markup, between, describe_scores, look_from, off_the_middle, view
from turntable.worker.contract import Camera


def camera(width: int = 400, height: int = 300, cx: float = 200, cy: float = 150) -> Camera:
    return Camera(width, height, 300.0, 300.0, cx, cy, np.eye(3), np.array([0.0, 0.0, 5.0]))


def test_a_look_stands_where_the_photo_was_taken_and_shows_all_of_it(tmp_path: Path) -> None:
    frame = frame_of(make_capture(tmp_path / "toys"))
    wide = look_from(camera(), frame, aspect=2.0)
    assert wide.fov == fov_of(camera()) == pytest.approx(2 * np.arctan(0.5))
    np.testing.assert_allclose(wide.position, frame.points(np.array([0.0, 0.0, -5.0])))
    np.testing.assert_allclose(wide.forward, [0, 0, 1], atol=1e-12)
    narrow = look_from(camera(), frame, aspect=1.0)  # its whole width is there, and more than its height
    assert np.tan(narrow.fov / 2) == pytest.approx(200 / 300)


def test_a_flight_ends_exactly_at_its_end(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "toys")
    start, end = (look_from(one.camera, frame_of(capture), 1.5) for one in capture.views[:2])
    assert between(start, end, 1.0) is end
    half = between(start, end, 0.5)
    np.testing.assert_allclose(half.position, (start.position + end.position) / 2)
    assert half.forward @ start.forward == pytest.approx(half.forward @ end.forward)


def test_a_principal_point_off_the_middle_is_said() -> None:
    assert off_the_middle(camera(cx=203.9)) is None
    said = off_the_middle(camera(cx=210, cy=145))
    assert said is not None and "+10.0 px right and -5.0 px down" in said


def test_the_scores_of_a_view_are_those_of_the_last_mark() -> None:
    scores = [
        Score(mark, 1, 1.0, metric, "d", item, value)
        for mark, metric, item, value in [
            (0.5, "psnr", "a.jpg", 20.0),
            (1.0, "psnr", "a.jpg", 25.0),
            (1.0, "ssim", "a.jpg", 0.81234),
            (0.5, "psnr", "b.jpg", 21.0),
        ]
    ]
    assert describe_scores(scores, "a.jpg") == ["psnr 25", "ssim 0.8123"]
    assert describe_scores(scores, "b.jpg") == ["psnr 21", "(at 50.0% of the budget)"]
    assert describe_scores(scores, "c.jpg") == ["Not scored yet."]


def test_what_a_method_says_stays_text() -> None:
    text = as_markup(["failed: <img src=http://elsewhere.example/x onerror=1>", "second"])
    assert "<img" not in text and "<br>second" in text


def test_an_overlay_is_opaque_in_the_share_of_points_that_was_asked_for() -> None:
    from PIL import Image

    picture = np.full((100, 150, 3), 77, np.uint8)
    seen = []
    for opacity in (0.25, 0.5, 1.0):
        data = picture_glb(picture, 3.0, 2.0, opacity)
        with Image.open(io.BytesIO(data[data.index(b"\x89PNG") :])) as image:
            points = np.asarray(image)
        assert (points[..., :3] == 77).all() and set(np.unique(points[..., 3])) <= {0, 255}
        seen.append(points[..., 3] > 0)
        assert seen[-1].mean() == pytest.approx(opacity, abs=0.02)
    assert (seen[1] >= seen[0]).all()  # the same points, and more


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (Address(port=0), "--port is a number"),
        (Address(port=70000), "--port is a number"),
        (Address(host="no.such.host.invalid"), "can't listen on no.such.host.invalid"),
        (Address(host="192.0.2.1"), "can't listen on 192.0.2.1"),
    ],
)
def test_an_address_that_cant_be_had_is_refused(address: Address, says: str) -> None:
    with pytest.raises(TurntableError, match=says):
        viewing.checked_address(address)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TurntableError, match=f"port {port} "):
            viewing.checked_address(Address(port=port))


def test_what_cant_be_looked_at_is_refused(tmp_path: Path) -> None:
    def look(bench: Bench, run: str) -> None:
        view(bench, run, Address(), Watcher(), lambda url: None, until=lambda: True)

    bench = make_bench(tmp_path)
    row = run_on(bench)
    with pytest.raises(TurntableError, match="Did you mean 'toys-colour-1'"):
        look(bench, "toys-color-1")
    shutil.rmtree(bench.runs_folder / row.id / "checkpoint")
    with pytest.raises(TurntableError, match="is done and has no checkpoint"):
        look(bench, row.id)
    make_program(bench.methods_folder / "prog")
    asked = plan(bench, bench.capture("toys"), RunRequest(methods=("prog",), budget=Budget(steps=5)))
    with pytest.raises(TurntableError, match="prog is a program"):
        look(bench, asked[0].id)


class Viewing:
    """A viewer that runs in a thread of its own."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        self.notes: list[str] = []
        self.urls: list[str] = []
        self.stop = threading.Event()
        self.server: Any = None
        self.failure: BaseException | None = None

    def wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline and self.failure is None, f"waited for {what}: {self.failure}"
            time.sleep(0.05)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``with looking(bench folder, run) as viewing``."""

    @contextmanager
    def start(folder: Path, run: str) -> Iterator[Viewing]:
        one = Viewing()
        serving, show = viewing.serving, viewing._Viewer.show

        @contextmanager
        def noted_serving(*arguments: Any) -> Iterator[Any]:
            with serving(*arguments) as server:
                one.server = server
                yield server

        def noted_show(self: Any, content: Any, steps: int, method: str) -> None:
            show(self, content, steps, method)
            one.shown.append(steps)

        class Notes(Watcher):
            def note(self, text: str) -> None:
                one.notes.append(text)

        def work() -> None:
            try:  # a record isn't for two threads
                view(Bench(folder), run, Address(), Notes(), one.urls.append, until=one.stop.is_set)
            except TurntableError as error:
                one.failure = error

        monkeypatch.setattr(viewing, "serving", noted_serving)
        monkeypatch.setattr(viewing._Viewer, "show", noted_show)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield one
        finally:
            one.stop.set()
            thread.join(30)
        assert not thread.is_alive()

    return start


def save_later(folder: RunFolder, steps: int) -> None:
    """The run's newest checkpoint once more, as one of so many steps."""
    root = folder.path / "checkpoint"
    newest, _ = checkpoint.newest(root)
    assert newest is not None
    target = checkpoint.begin(root)
    shutil.copytree(newest.folder, target, dirs_exist_ok=True)
    checkpoint.commit(root, {**newest.state, "steps": steps})


def test_a_newer_checkpoint_is_shown_while_somebody_works_on_the_run(
    tmp_path: Path, looking: Callable[..., Any]
) -> None:
    bench = make_bench(tmp_path)
    folder = bench.run_folder(run_on(bench).id)
    lock = folder.lock()
    assert lock is not None
    with lock, looking(bench.folder, folder.id) as one:
        one.wait(lambda: one.shown == [20], "the first checkpoint")
        save_later(folder, 25)
        one.wait(lambda: one.shown == [20, 25], "the newer one")
        assert one.server.scene.get_handle_by_name("/scene") is not None
    assert one.notes == [] and one.urls[0].startswith("http://127.0.0.1:")
    assert not list(folder.path.glob(".export-*"))


def test_a_run_that_has_only_begun_is_waited_for(tmp_path: Path, looking: Callable[..., Any]) -> None:
    bench = make_bench(tmp_path)
    request = RunRequest(methods=("colour",), budget=Budget(steps=20))
    (folder,) = plan(bench, bench.capture("toys"), request)
    with looking(bench.folder, folder.id) as one:
        one.wait(lambda: bool(one.urls), "the viewer")
        assert "has no checkpoint yet" in one.notes[0] and one.shown == []
        run_on(bench)
        one.wait(lambda: one.shown[-1:] == [20], "the last checkpoint")


def test_a_method_that_exports_nothing_is_looked_at_by_its_cameras(
    tmp_path: Path, looking: Callable[..., Any]
) -> None:
    bench = make_bench(tmp_path, exports=False)
    row = run_on(bench)
    with looking(bench.folder, row.id) as one:
        one.wait(lambda: one.shown == [20], "the checkpoint")
        assert one.server.scene.get_handle_by_name("/held-out cameras/0001") is not None
        assert one.server.scene.get_handle_by_name("/scene") is None


def test_choosing_a_held_out_view_moves_the_camera_there(tmp_path: Path, looking: Callable[..., Any]) -> None:
    bench = make_bench(tmp_path)
    capture, row = bench.capture("toys"), run_on(bench)
    errors, asked = [], []
    with looking(bench.folder, row.id) as one, chromium(draws_3d=True) as browser:
        one.wait(lambda: one.shown == [20], "the checkpoint")
        page = browser.new_page(viewport={"width": 800, "height": 600})
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(one.urls[0])
        chosen = capture.held_out[1]
        page.get_by_text("after 20 steps").wait_for(timeout=20_000)
        page.locator("input.mantine-Select-input:visible").first.click()
        page.get_by_role("option", name=chosen.name).click()
        page.get_by_text("psnr").wait_for(timeout=20_000)
        goal = look_from(chosen.camera, frame_of(capture), 800 / 600)

        def there() -> bool:
            page.wait_for_timeout(100)
            (client,) = one.server.get_clients().values()
            place = np.allclose(client.camera.position, goal.position, atol=1e-4)
            return place and abs(np.dot(client.camera.wxyz, wxyz_of(chosen.camera))) > 1 - 1e-6

        one.wait(there, "the camera to arrive")
        (client,) = one.server.get_clients().values()
        assert client.camera.fov == pytest.approx(goal.fov, abs=1e-4)
        assert not one.server.scene.get_handle_by_name("/held-out cameras/0001").visible
    local = one.urls[0].removeprefix("http://")
    assert {url for url in asked if not url.startswith(("blob:", "data:"))} == {
        f"http://{local}/",
        f"ws://{local}/",
    }
    assert [text for text in errors if VISERS_OWN not in text] == []
