"""The task ``views``: given the training photos, what do the held-out views look like?

Every held-out view is rendered, every rendering is scored: the 8-bit rendering at the size trained on,
against the photo, under the photo's mask where it has one. Nothing is ever left out of the scores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..captures.capture import Capture, CaptureView
from ..captures.layout import TEST, write_transforms
from ..errors import TurntableError
from ..record import Score
from ..worker.png import write_png
from .metrics import Metric
from .renderings import find_renderings, read_answer, read_rendering

NAME = "views"


Keep = Callable[[Path, str, CaptureView, np.ndarray, np.ndarray, "np.ndarray | None"], object]
"""What is done with a rendering when it has been scored: see :class:`ViewsTask`."""


class ViewsTask:
    """The task ``views`` on one capture, scored by some metrics."""

    def __init__(self, capture: Capture, metrics: Mapping[str, Metric], keep: Keep | None = None) -> None:
        """A task.

        Args:
            capture: whose held-out views are asked for.
            metrics: what they are scored by.
            keep: given every rendering of the whole budget when it has been scored: the run's folder, the rendering's path
                in there, its view, the photo and the rendering, ``uint8[H, W, 3]``, and the mask, ``bool[H, W]`` or None.
        """
        self.capture = capture
        self.metrics = dict(metrics)
        self._keep = keep

    answers = ("views", "curve", "depth")
    """The folders in a run's that a worker's answers go to."""

    @property
    def folder(self) -> Path:
        """The capture's folder."""
        return self.capture.folder

    def held_out_files(self) -> tuple[Path, ...]:
        """The held-out photos, their masks, and what the capture knows to be true: no method may see them."""
        files = [path for view in self.capture.held_out for path in (view.image_path, view.mask_path)]
        truth = self.capture.folder / "truth"
        return (*(path for path in files if path is not None), *((truth,) if truth.is_dir() else ()))

    def inputs(self) -> dict[str, Any]:
        """What the worker may know: training views, sparse points and background; nothing that is held out."""
        points = self.capture.points_path
        return {
            "views": [
                {
                    "name": view.name,
                    "camera": view.camera.to_json(),
                    "image": str(view.image_path),
                    "mask": str(view.mask_path) if view.mask_path else None,
                }
                for view in self.capture.training
            ],
            "points": str(points) if points else None,
            "background": list(self.capture.background),
            "has_alpha": self.capture.has_alpha,
        }

    def requests(self, run: Path, mark: float) -> list[dict[str, Any]]:
        """Every held-out camera, and where its rendering goes; depth is asked for at the whole budget only."""
        (folder := answers_folder(run, mark)).mkdir(parents=True, exist_ok=True)
        if mark == 1.0:
            (run / "depth").mkdir(exist_ok=True)
        return [
            {
                "name": view.name,
                "camera": view.camera.to_json(),
                "image": str(folder / view.image_path.name),
                "depth": str(run / "depth" / f"{view.image_path.name}.npy") if mark == 1.0 else None,
            }
            for view in self.capture.held_out
        ]

    def lay_out(self, folder: Path) -> dict[str, Path]:
        """Lay the capture out in ``folder`` as a program expects it, without the held-out photos.

        Returns:
            The values of the placeholders ``{capture}`` and ``{cameras}`` (of the held-out views).
        """
        write_transforms(self.capture, folder)
        return {"capture": folder, "cameras": folder / TEST}

    def collect(self, run: Path, pattern: str, out: Path) -> int:
        """Find a program's renderings of the held-out views by its ``views`` pattern, and put them where they are scored.

        Returns:
            How many there are.

        Raises:
            TurntableError: one is missing, or isn't an 8-bit picture of the view's size.
        """
        (folder := answers_folder(run, 1.0)).mkdir(parents=True, exist_ok=True)
        found = find_renderings(pattern, out, self.capture)
        for view in self.capture.held_out:
            image = read_rendering(found[view.name], view.camera.width, view.camera.height)
            write_png(folder / view.image_path.name, image)
        return len(found)

    def score(
        self,
        run: Path,
        mark: float,
        steps: int,
        device_seconds: float,
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Score]:
        """Score every held-out view by every metric, from the files that the worker wrote.

        Raises:
            FileNotFoundError: a rendering is missing.
        """
        folder = answers_folder(run, mark)
        views = self.capture.held_out

        def score_view(view: CaptureView) -> list[Score]:
            try:
                return score_readable(view)
            except ValueError as error:  # a picture that was damaged on the disk
                raise TurntableError(f"View {view.name} can't be scored: {error}.") from error

        def score_readable(view: CaptureView) -> list[Score]:
            size = view.camera.width, view.camera.height
            answer = (folder / view.image_path.name).relative_to(run).as_posix()
            rendering = read_answer(run, answer, *size)
            photo, mask = view.image(), view.mask()
            found = [
                Score(
                    mark=mark,
                    steps=steps,
                    device_seconds=device_seconds,
                    metric=metric.name,
                    definition=metric.definition,
                    item=view.name,
                    value=metric.compute(photo, rendering, mask),
                )
                for metric in self.metrics.values()
            ]
            if self._keep is not None and mark == 1.0:
                self._keep(run, answer, view, photo, rendering, mask)
            return found

        scores: list[Score] = []
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            try:
                for done, of_view in enumerate(pool.map(score_view, views), 1):
                    scores += of_view
                    watch(done, len(views))
            except BaseException:  # Ctrl-C must not wait for all the rest
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return scores

    def score_missing(
        self, run: Path, mark: float, steps: int, device_seconds: float, scores: list[Score]
    ) -> list[Score]:
        """Score by the metrics that ``scores`` lack for some view, from the stored renderings of ``mark``.

        Returns:
            The new scores; [] where nothing is missing, or a rendering is.
        """
        folder = answers_folder(run, mark)
        held_out = {view.name for view in self.capture.held_out}
        missing = {
            name: metric
            for name, metric in self.metrics.items()
            if {score.item for score in scores if score.definition == metric.definition} != held_out
        }
        there = all((folder / view.image_path.name).is_file() for view in self.capture.held_out)
        return (
            ViewsTask(self.capture, missing, self._keep).score(run, mark, steps, device_seconds)
            if missing and there
            else []
        )


def answers_folder(run: Path, mark: float) -> Path:
    """Where the renderings at ``mark`` of a run's budget lie."""
    return run / "views" if mark == 1.0 else run / "curve" / f"{mark:g}"


def folder_of(answers: Path) -> Path:
    """The folder of the run whose :func:`answers_folder` this is."""
    return answers.parent if answers.name == "views" else answers.parent.parent
