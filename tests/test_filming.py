"""Films: what a run renders along a path, as a video that players play."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from html import unescape
from pathlib import Path

import av
import numpy as np
import pytest

from browsers import CHROMIUM, NO_CHROMIUM
from conftest import make_capture, make_method, make_program
from turntable import filming
from turntable.bench import Bench
from turntable.captures.paths import Film
from turntable.errors import TurntableError
from turntable.filming import Shot, film_runs, page_film
from turntable.jobs import Handling, RunRequest, plan, work
from turntable.run import Budget
from turntable.turns.supervisor import Patience
from turntable.turns.watcher import Watcher

TINTED = '''
import numpy as np


class Method:
    """One colour, by its setting; brighter the farther to the right the camera looks."""

    def __init__(self, views, settings, seed, device):
        self.colour = [float(value) for value in settings["colour"].split()]

    def step(self):
        return {}

    def render(self, camera):
        image = np.broadcast_to(self.colour, (camera.height, camera.width, 3)).copy()
        image[:, : camera.width // 2] *= 0.5 + 0.5 * camera.R[2, 0]
        return {"image": image.astype(np.float32)}

    def save(self, folder):
        (folder / "nothing").touch()

    def load(self, folder):
        pass
'''

TINTED_TOML = """
name = "tinted"
task = "views"
title = "A method of the tests"
[environment]
kind = "host"
[run]
kind = "python"
entry = "method:Method"
[settings.colour]
default = "0.9 0.2 0.1"
help = "red, green and blue"
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Done runs: two tinted ones and a program's on one capture, one tinted on another; and one that is queued."""
    bench = Bench(tmp_path_factory.mktemp("films") / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small", size=(48, 32))
    make_capture(bench.captures_folder / "other", views=8, size=(48, 32))
    tinted = bench.methods_folder / "tinted"
    tinted.mkdir(parents=True)
    (tinted / "method.toml").write_text(TINTED_TOML)
    (tinted / "method.py").write_text(TINTED)
    make_method(bench.methods_folder / "colour")
    make_program(bench.methods_folder / "program")
    budget = Budget(steps=3)
    asked = [
        *plan(bench, bench.capture("small"), RunRequest(("tinted",), budget)),
        *plan(
            bench, bench.capture("small"), RunRequest(("tinted",), budget, settings=("colour=0.1 0.3 0.9",))
        ),
        *plan(bench, bench.capture("other"), RunRequest(("tinted",), budget)),
        *plan(bench, bench.capture("small"), RunRequest(("program",), budget)),
        *plan(bench, bench.capture("small"), RunRequest(("colour",), budget, settings=("mode=costly",))),
    ]
    work(bench, asked, Handling(Patience(save_every_s=0.2)), Watcher())
    plan(bench, bench.capture("other"), RunRequest(("colour",), budget))
    return bench


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def shot(frames: int = 12, fps: int = 24, path: str = "orbit") -> Shot:
    return Shot(path, Film(frames), fps)


def test_a_film_has_the_frames_the_size_and_the_colours_that_were_rendered(
    bench: Bench, tmp_path: Path
) -> None:
    written = film_runs(bench, ["small-tinted-1"], shot(), tmp_path / "film.mp4", Watcher())
    with av.open(str(written)) as video:
        stream = video.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 24)
        assert (context.width, context.height, stream.frames) == (48, 32, 12)
    frames = frames_of(written)
    assert len(frames) == 12
    for frame in frames:
        np.testing.assert_allclose(frame[:, 32:].mean((0, 1)), [0.9 * 255, 0.2 * 255, 0.1 * 255], atol=6)
    left = [frame[:, :16, 0].mean() for frame in frames]
    assert np.ptp(left) > 100  # the camera turns, and the film shows it


def test_a_film_can_be_played_before_all_of_it_has_come(bench: Bench, tmp_path: Path) -> None:
    content = film_runs(bench, ["small-tinted-1"], shot(), tmp_path / "film.mp4", Watcher()).read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_runs_stand_side_by_side_in_their_order_under_their_names(bench: Bench, tmp_path: Path) -> None:
    runs = ["small-tinted-2", "small-tinted-1"]
    frame = frames_of(film_runs(bench, runs, shot(2), tmp_path / "film.mp4", Watcher()))[0]
    strip = filming.LABEL_HEIGHT
    assert frame.shape == (32 + strip, 96, 3)
    np.testing.assert_allclose(frame[strip + 4 :, 32:44].mean((0, 1)), [25, 76, 229], atol=12)
    np.testing.assert_allclose(frame[strip + 4 :, 80:].mean((0, 1)), [229, 51, 25], atol=12)
    for name in (frame[:strip, :48], frame[:strip, 48:]):
        assert name.max() > 150 and np.median(name) < 60  # bright letters on a dark strip


def test_one_run_alone_has_no_strip_and_is_filmed_once_however_often_it_is_named(
    bench: Bench, tmp_path: Path
) -> None:
    runs = ["small-tinted-1", "small-tinted-1"]
    frame = frames_of(film_runs(bench, runs, shot(2), tmp_path / "film.mp4", Watcher()))[0]
    assert frame.shape == (32, 48, 3)


def test_a_path_of_a_file_is_gone_as_it_is_written(bench: Bench, tmp_path: Path) -> None:
    cameras = [view.camera.to_json() for view in bench.capture("small").views[:5]]
    path = tmp_path / "path.json"
    path.write_text(json.dumps({"cameras": cameras}))
    frames = frames_of(
        film_runs(bench, ["small-tinted-1"], shot(path=str(path)), tmp_path / "film.mp4", Watcher())
    )
    assert len(frames) == 5
    for camera, frame in zip(cameras, frames, strict=True):
        expected = 0.9 * 255 * (0.5 + 0.5 * camera["R"][2][0])
        assert frame[:, 4:20, 0].mean() == pytest.approx(expected, abs=8)


@pytest.mark.parametrize(
    ("runs", "asked", "out", "said"),
    [
        (["small-tinted-1", "other-tinted-1"], shot(), "film.mp4", "are on small, other"),
        (["small-program-1"], shot(), "film.mp4", "is a program"),
        (["small-tinted-9"], shot(), "film.mp4", "small-tinted-9"),
        (["other-colour-1"], shot(), "film.mp4", "no checkpoint"),
        (["small-tinted-1"], shot(fps=0), "film.mp4", "--fps is from 1 to 120, not 0"),
        (["small-tinted-1"], shot(frames=1), "film.mp4", "--frames is from 2"),
        (["small-tinted-1"], shot(), "film.webm", "ends with .mp4"),
        (["small-tinted-1"], shot(), "nowhere/film.mp4", "--out needs a folder that exists"),
        (["small-tinted-1"], shot(path="circle"), "film.mp4", "takes orbit, views or a JSON file"),
    ],
)
def test_what_cannot_be_filmed_is_refused_before_any_method_is_started(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[str],
    asked: Shot,
    out: str,
    said: str,
) -> None:
    monkeypatch.setattr(filming, "loaded", None)
    with pytest.raises(TurntableError) as refused:
        film_runs(bench, runs, asked, tmp_path / out, Watcher())
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_run_that_somebody_works_on_is_not_filmed_meanwhile(bench: Bench, tmp_path: Path) -> None:
    lock = bench.run_folder("small-tinted-1").lock()
    assert lock is not None
    with lock, pytest.raises(TurntableError, match="is being worked on"):
        film_runs(bench, ["small-tinted-1"], shot(), tmp_path / "film.mp4", Watcher())
    assert not list(tmp_path.iterdir())


def test_an_interrupted_film_leaves_neither_a_film_nor_a_part_of_one(bench: Bench, tmp_path: Path) -> None:
    class Impatient(Watcher):
        def run_doing(self, run: str, what: str, done: int, total: int) -> None:
            if done > 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film_runs(bench, ["small-tinted-1"], shot(24), tmp_path / "film.mp4", Impatient())
    assert not list(tmp_path.iterdir())
    assert not list(bench.run_folder("small-tinted-1").path.glob(".export-*"))


@pytest.fixture
def no_film(bench: Bench) -> None:
    """No film of the page is kept yet."""
    for run in bench.runs_folder.iterdir():
        shutil.rmtree(run / "film", ignore_errors=True)


@pytest.mark.usefixtures("no_film")
def test_the_pages_film_is_made_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = page_film(bench, bench.row("small-tinted-1"), Watcher())
    assert isinstance(made, Path) and len(frames_of(made)) == filming.PAGE_FILM.frames
    monkeypatch.setattr(filming, "loaded", None)
    assert page_film(bench, bench.row("small-tinted-1"), Watcher()) == made
    monkeypatch.undo()
    made.unlink()
    assert page_film(bench, bench.row("small-tinted-1"), Watcher()) == made and made.is_file()


@pytest.mark.usefixtures("no_film")
def test_a_slow_method_gets_fewer_frames_of_the_same_length_or_the_reason_for_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's method takes 0.2 s a frame."""
    monkeypatch.setattr(filming, "PAGE_FILM", Film(frames=24))
    monkeypatch.setattr(filming, "FEWEST_FRAMES", 6)
    row = bench.row("small-colour-1")
    monkeypatch.setattr(filming, "PAGE_LIMIT_S", 0.8)
    reason = page_film(bench, row, Watcher())
    assert isinstance(reason, str) and reason.startswith("rendering takes 0.") and "s a frame" in reason
    assert page_film(bench, row, Watcher()) == reason
    shutil.rmtree(bench.run_folder(row.id).path / "film")
    monkeypatch.setattr(filming, "PAGE_LIMIT_S", 3.2)
    made = page_film(bench, row, Watcher())
    assert isinstance(made, Path)
    with av.open(str(made)) as video:
        stream = video.streams.video[0]
        assert 6 <= stream.frames <= 12
        assert stream.average_rate is not None
        assert stream.frames / stream.average_rate == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize(
    ("run", "said"), [("small-program-1", "only Python methods"), ("other-colour-1", "the run is queued")]
)
def test_a_page_is_told_why_there_is_no_film(bench: Bench, run: str, said: str) -> None:
    reason = page_film(bench, bench.row(run), Watcher())
    assert isinstance(reason, str) and said in reason


PLAYER = """<!doctype html><video src="film.mp4" muted preload="auto"></video><pre id="found"></pre><script>
const video = document.querySelector("video");
const say = () => { document.getElementById("found").textContent = JSON.stringify({
  ready: video.readyState, error: video.error && video.error.message,
  size: [video.videoWidth, video.videoHeight], seconds: video.duration }); };
for (const event of ["canplaythrough", "error"]) video.addEventListener(event, say);
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
@pytest.mark.parametrize("served", [False, True], ids=["from a file", "served"])
def test_a_browser_plays_a_film(bench: Bench, tmp_path: Path, served: bool) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    film_runs(bench, ["small-tinted-1", "small-tinted-2"], shot(), folder / "film.mp4", Watcher())
    (folder / "index.html").write_text(PLAYER)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/" if served else (folder / "index.html").as_uri()
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--timeout=8000",
            "--dump-dom",
            address,
        ]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        server.shutdown()
    noted = answer.stdout.partition('<pre id="found">')[2].partition("</pre>")[0]
    assert noted, answer.stderr[-2000:]
    found = json.loads(unescape(noted))
    assert found["error"] is None and found["ready"] >= 2
    assert found["size"] == [96, 60] and found["seconds"] == pytest.approx(0.5, abs=0.05)
