"""Films show what the methods render, side by side, and a page's film is made once."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from conftest import make_capture, make_method, make_program
from turntable import Bench, Budget, RunRequest, TurntableError
from turntable.captures.paths import Film
from turntable.filming import LABEL_HEIGHT, Shot, film_runs, page_film
from turntable.jobs import plan, work
from turntable.turns.watcher import Watcher


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench with the capture ``toys`` and the method ``colour``, which renders one colour."""
    bench = Bench.find(tmp_path / "bench")
    bench.make()
    make_capture(bench.captures_folder / "toys")
    make_method(bench.folder / "methods" / "colour")
    return bench


def done(bench: Bench, *settings: str, method: str = "colour", seeds: int = 1) -> list[str]:
    """The ids of finished runs of the method."""
    request = RunRequest((method,), Budget(steps=8), seeds=seeds, settings=settings)
    folders = plan(bench, bench.capture("toys"), request)
    work(bench, folders, request.handling, Watcher())
    return [folder.id for folder in folders]


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_film_has_the_frames_and_colours_that_the_method_rendered(bench: Bench, tmp_path: Path) -> None:
    (run,) = done(bench)
    out = film_runs(bench, [run], Shot(film=Film(20, 48), fps=10), tmp_path / "a.mp4", Watcher())
    shown = pictures(out)
    assert len(shown) == 20 and shown[0].shape == (32, 48, 3)
    from turntable.worker.png import read_png

    view = next((bench.run_folder(run).path / "views").glob("*.png"))
    assert (
        np.abs(shown[7].mean((0, 1)) - read_png(view).mean((0, 1))).max() < 4
    )  # one colour, whatever the camera
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate or 0) == 10


def test_several_runs_stand_side_by_side_under_their_names(bench: Bench, tmp_path: Path) -> None:
    runs = done(bench, seeds=2)
    out = film_runs(bench, runs, Shot("views", Film(4, 96)), tmp_path / "b.mp4", Watcher())
    first = pictures(out)[0]
    assert first.shape == (64 + LABEL_HEIGHT, 2 * 96, 3)
    strip = first[:LABEL_HEIGHT].max(-1)
    assert strip.max() > 150 and np.median(strip) < 60  # light letters on a dark strip
    assert {path.name for path in tmp_path.iterdir()} >= {"b.mp4"}
    assert not list(tmp_path.glob(".b*"))


def test_runs_of_different_captures_are_not_filmed_together(bench: Bench, tmp_path: Path) -> None:
    (run,) = done(bench)
    make_capture(bench.captures_folder / "other", views=5)
    request = RunRequest(("colour",), Budget(steps=8))
    (folder,) = plan(bench, bench.capture("other"), request)
    work(bench, [folder], request.handling, Watcher())
    with pytest.raises(TurntableError, match="toys, other"):
        film_runs(bench, [run, folder.id], Shot(film=Film(4)), tmp_path / "c.mp4", Watcher())
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize(
    ("shot", "out", "message"),
    [
        (Shot(fps=0), "a.mp4", "--fps"),
        (Shot(film=Film(1)), "a.mp4", "--frames"),
        (Shot("gone.json"), "a.mp4", "--path takes"),
        (Shot(), "a.gif", "ends with .mp4"),
        (Shot(), "nowhere/a.mp4", "a folder that exists"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(
    bench: Bench, tmp_path: Path, shot: Shot, out: str, message: str
) -> None:
    (run,) = done(bench)
    with pytest.raises(TurntableError, match=message):
        film_runs(bench, [run], shot, tmp_path / out, Watcher())


def test_a_page_film_is_made_once_and_again_when_asked_of_another_checkpoint(bench: Bench) -> None:
    (run,) = done(bench)
    made = page_film(bench, bench.row(run), Watcher())
    assert isinstance(made, Path) and len(pictures(made)) == 96
    before = made.stat().st_mtime_ns
    assert page_film(bench, bench.row(run), Watcher()) == made and made.stat().st_mtime_ns == before
    made.unlink()
    assert page_film(bench, bench.row(run), Watcher()) == made and made.is_file()


def test_a_method_that_is_too_slow_gets_words_and_no_film(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = done(bench, "mode=costly")
    monkeypatch.setattr("turntable.filming.PAGE_LIMIT_S", 1.0)
    for _ in range(2):
        assert "s a frame" in str(page_film(bench, bench.row(run), Watcher()))


def test_what_cannot_be_filmed_gets_words(bench: Bench, tmp_path: Path) -> None:
    (failed,) = done(bench, "mode=crash")
    assert page_film(bench, bench.row(failed), Watcher()) == "the run is failed"
    make_program(bench.folder / "methods" / "program")
    (program,) = done(bench, method="program")
    assert "is a program" in str(page_film(bench, bench.row(program), Watcher()))
    with pytest.raises(TurntableError, match="is a program"):
        film_runs(bench, [program], Shot(), tmp_path / "a.mp4", Watcher())
