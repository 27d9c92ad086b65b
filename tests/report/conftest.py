"""What the page's tests share: captures with awkward names, and runs that look like real ones."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsers import chromium
from conftest import make_capture
from turntable.captures.capture import Capture
from turntable.captures.leakage import Leak
from turntable.methods.facts import Protocol
from turntable.report.data import Film, MetricInfo, ReportData, ReportRun
from turntable.report.page import build_page
from turntable.tasks.metrics import metrics
from turntable.tasks.published import Beside
from turntable.tasks.summary import summarise
from turntable.worker.png import write_png

METRICS = [
    MetricInfo(one.name, one.title, one.unit, one.higher_is_better, one.definition)
    for one in metrics().values()
]


def rename_views(capture: Capture, names: dict[str, str]) -> Capture:
    """The same capture with some of its views called otherwise."""
    for view in capture.document["views"]:
        view["name"] = names.get(view["name"], view["name"])
    (capture.folder / "capture.json").write_text(json.dumps(capture.document))
    return Capture.load(capture.folder)


def make_run(
    folder: Path,
    capture: Capture,
    method: str,
    noise: float | Sequence[float] = 0.0,
    state: str = "done",
    number: int = 1,
) -> ReportRun:
    """A run whose renderings are the photos with seeded noise (of each view, or of all), scored by the real metrics if it
    is done."""
    run_id = f"{capture.name}-{method}-{number}"
    key = hashlib.sha256(f"{run_id} {noise}".encode()).hexdigest()[:12]  # a method's name may be no file name
    views = folder / "runs" / key / "views"
    generator = np.random.default_rng(number)
    per_item: dict[str, dict[str, float]] = {name: {} for name in metrics()}
    if state == "done":
        views.mkdir(parents=True)
        noises = np.broadcast_to(noise, len(capture.held_out))
        for view, deviation in zip(capture.held_out, noises, strict=True):
            photo = view.image()
            rendering = (photo + generator.normal(0, deviation, photo.shape)).clip(0, 255).astype(np.uint8)
            write_png(views / view.image_path.name, rendering)
            for name, metric in metrics().items():
                per_item[name][view.name] = metric.compute(photo, rendering, view.mask())
    scores = {
        name: summarise(items, metrics()[name].higher_is_better) for name, items in per_item.items() if items
    }
    curve = [
        {
            "device_seconds": 12.5 * mark,
            "steps": int(800 * mark),
            "scores": {name: {"mean": summary["mean"]} for name, summary in scores.items()},
        }
        for mark in (0.125, 0.25, 0.5, 1.0)
    ]
    failed = state == "failed"
    return ReportRun(
        id=run_id,
        method=method,
        title=f"The method {method}",
        license="Apache-2.0",
        paper={"title": "A paper", "year": 2023, "url": "https://example.org/paper"},
        seed=number - 1,
        state=state,
        cause="killed by signal 11 (segmentation fault) at step 5" if failed else None,
        settings={"learning_rate": 0.01},
        budget="2000steps",
        device="cpu",
        device_seconds=12.5,
        setup_seconds=0.25,
        steps=800,
        peak_memory_bytes=300 * 2**20,
        scores=scores,
        curve=curve if scores else [],
        views_folder=views,
        log_tail=["loading photos", "Segmentation fault"] if failed else [],
    )


def make_data(capture: Capture, runs: list[ReportRun]) -> ReportData:
    return ReportData(
        capture=capture,
        runs=runs,
        metrics=METRICS if any(run.scores for run in runs) else [],
        machine={"processor": "a processor, 2 usable cores", "system": "Linux"},
        versions={"turntable": "0.1.0"},
        command="turntable compare photos -m splat",
        created="2026-11-24 03:00:00 +0000",
    )


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    """Ten photos of 24×16 pixels, two of them held out."""
    return make_capture(tmp_path / "captures" / "toys")


@pytest.fixture
def masked_capture(tmp_path: Path) -> Capture:
    """The same with masks."""
    return make_capture(tmp_path / "captures" / "masked", masked=True, size=(32, 24))


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., ReportRun]:
    """``run_of(capture, method, noise, state, number)``: see make_run."""
    return lambda capture, method, noise=0.0, state="done", number=1: make_run(
        tmp_path, capture, method, noise, state, number
    )


@pytest.fixture
def data_of() -> Callable[[Capture, list[ReportRun]], ReportData]:
    """``data_of(capture, runs)``: all that a page of them shows."""
    return make_data


@pytest.fixture
def renamed() -> Callable[[Capture, dict[str, str]], Capture]:
    """``renamed(capture, names)``: see rename_views."""
    return rename_views


# A real browser: what it needs, and pages with everything on them


EVIL = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
"""A name that would run, and break every picture's count, wherever it is not shown as text."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for a module's tests."""
    with chromium() as browser:
        yield browser


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: what a page asks for is noted by the browser."""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder for pages, and the address at which it is served over HTTP."""
    folder = tmp_path_factory.mktemp("site")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Visit:
    """A page in the browser, and all that it said and asked for."""

    page: Any
    folder: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def strays(self) -> list[str]:
        """Requests for what is neither in the page's folder nor in the page."""
        return [url for url in self.requests if not url.startswith((self.folder, "data:", "blob:"))]


@pytest.fixture
def visit(browser: Any, site: tuple[Path, str]) -> Iterator[Callable[..., Visit]]:
    """``visit(index, scheme, **options)``: the page, opened from its file or over HTTP; options are those of a context.

    After the test, no page may have complained, or asked for anything from elsewhere.
    """
    visits: list[Visit] = []
    contexts = []

    def open_page(index: Path, scheme: str = "file", **options: Any) -> Visit:
        contexts.append(
            context := browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **options})
        )
        context.set_default_timeout(10_000)
        folder, served = site
        address = index.as_uri() if scheme == "file" else f"{served}/{index.relative_to(folder).as_posix()}"
        visits.append(found := Visit(context.new_page(), address[: address.rindex("/") + 1]))
        found.page.on(
            "console",
            lambda said: found.console.append(said.text) if said.type in ("error", "warning") else None,
        )
        found.page.on("pageerror", lambda error: found.console.append(str(error)))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(address)
        return found

    yield open_page
    for context in contexts:
        context.close()
    assert [line for one in visits for line in one.console] == []
    assert [url for one in visits for url in one.strays] == []


@dataclass(frozen=True)
class Shown:
    """A page that was built, and what it was built from."""

    index: Path
    data: ReportData

    @property
    def views(self) -> list[str]:
        return [view.name for view in self.data.capture.held_out]

    def values(self, metric: str, method: str) -> dict[str, float]:
        """By view, the mean over a method's finished runs."""
        runs = [run for run in self.data.runs if run.method == method and run.state == "done"]
        return {
            view: sum(run.scores[metric]["per_item"][view] for run in runs) / len(runs) for view in self.views
        }

    def runs(self, method: str) -> list[ReportRun]:
        return [run for run in self.data.runs if run.method == method]


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """All that a page can show: a floor, three and two seeds, failures, a leak, films, published numbers."""
    folder = tmp_path_factory.mktemp("bench")
    capture = make_capture(folder / "captures" / "toys", views=30, size=(72, 48))
    noises = {  # of each of the six views: for each metric, and for each method, another is the worst
        "nearest": (60, 50, 40, 70, 55, 45),
        "splat": (5, 9, 4, 30, 12, 7),
        "grid": (20, 6, 35, 8, 3, 10),
    }
    runs = [make_run(folder, capture, "nearest", noises["nearest"])]
    for method, seeds in (("splat", 3), ("grid", 2)):
        for number in range(1, seeds + 1):
            turned = [*noises[method][number - 1 :], *noises[method][: number - 1]]
            noise = [one + 0.5 * other for one, other in zip(noises[method], turned, strict=True)]
            runs.append(make_run(folder, capture, method, noise, number=number))
    runs.append(make_run(folder, capture, "grid", state="failed", number=3))
    runs.append(make_run(folder, capture, "crasher", state="failed"))
    (folder / "orbit.mp4").write_bytes(b"a video, which no test plays")
    (folder / "scene.html").write_text("<!doctype html><title>a scene</title>")
    published = [
        Beside(
            value=27.2,
            metric="psnr",
            method="A published method",
            source="A paper, table 1",
            agrees=agrees,
            differences=() if agrees else ("another size",),
            ours=26.9 if agrees else None,
            our_method="splat",
            same_method=agrees,
            scene="toys",
            dataset="a data set",
            checked=agrees,
            note="A note on it." if agrees else "",
            protocol=Protocol(),
        )
        for agrees in (True, False)
    ]
    return replace(
        make_data(capture, runs),
        films={
            "splat": Film(runs[1].id, video=folder / "orbit.mp4", scene=folder / "scene.html"),
            "grid": Film(runs[4].id, no_video="it can't be rendered from there", no_scene="it has no points"),
        },
        leaks=(Leak("0005.jpg", "0006.jpg", "identical", None),),
        published=tuple(published),
    )


@pytest.fixture(scope="session")
def english(everything: ReportData, site: tuple[Path, str]) -> Shown:
    """The page with everything on it."""
    return Shown(build_page(everything, site[0] / "english"), everything)


@pytest.fixture(scope="session")
def korean(everything: ReportData, site: tuple[Path, str]) -> Shown:
    """The same in Korean."""
    data = replace(everything, lang="ko")
    return Shown(build_page(data, site[0] / "korean"), data)


@pytest.fixture(scope="session")
def single(everything: ReportData, site: tuple[Path, str]) -> Shown:
    """The same as one file."""
    return Shown(build_page(everything, site[0] / "single", single_file=True), everything)


@pytest.fixture(scope="session")
def evil(tmp_path_factory: pytest.TempPathFactory, site: tuple[Path, str]) -> Shown:
    """A page in Korean whose every name is a script."""
    folder = tmp_path_factory.mktemp("evil")
    capture = rename_views(make_capture(folder / "toys"), {"0000.jpg": f"a{EVIL}", "0001.jpg": f"b{EVIL}"})
    runs = [make_run(folder, capture, "nearest", 40.0)]
    for number in (1, 2):
        run = make_run(folder, capture, EVIL, 5.0 * number, number=number)
        runs.append(replace(run, title=EVIL, settings={EVIL: EVIL}, license=EVIL))
    crashed = make_run(folder, capture, "crasher", state="failed")
    runs.append(replace(crashed, cause=EVIL, log_tail=[EVIL], paper={"title": EVIL, "url": EVIL}))
    data = replace(
        make_data(capture, runs),
        lang="ko",
        command=EVIL,
        machine={EVIL: EVIL},
        leaks=(Leak(f"a{EVIL}", f"b{EVIL}", "identical", None),),
        films={EVIL: Film(runs[1].id, no_video=EVIL, no_scene=EVIL)},
    )
    return Shown(build_page(data, site[0] / "evil"), data)
