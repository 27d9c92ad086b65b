"""A bench's own means over the scenes of a data set, beside the published ones."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

from .bench import Bench
from .captures.capture import Capture
from .captures.dataset import dataset_of
from .errors import TurntableError
from .methods.spec import Method
from .results import capture_document, mean_document
from .run import Asked
from .tasks.published import Beside, Ours, Published, beside_mean


def means_beside(bench: Bench, dataset: str, published: Published) -> tuple[list[Beside], list[str]]:
    """The published means of a data set, each beside that of every method of the bench that ran on its scenes.

    Runs that differ by nothing but their seeds and scenes are one method's: of a scene, the mean over seeds counts.

    Returns:
        The rows, those of the same method first for each of ours; and why a capture of the data set has no part in them, a
        line each.
    """
    by_scene: dict[str, list[Capture]] = {}
    for capture in bench.captures().values():
        said = dataset_of(capture)
        if said is not None and said.name == dataset and said.scene:
            by_scene.setdefault(said.scene, []).append(capture)
    ours: dict[str, dict[str, tuple[Capture, Ours]]] = {}
    notes = []
    for scene, captures in by_scene.items():
        if len(captures) > 1:
            names = ", ".join(capture.name for capture in captures)
            notes.append(
                f"{scene} is here as {len(captures)} captures ({names}): a mean takes one, so it has none."
            )
            continue
        try:
            found = _of_scene(bench, captures[0])
        except TurntableError as error:
            notes.append(f"{scene}: {error}")
            continue
        for key, own in found.items():
            ours.setdefault(key, {})[scene] = (captures[0], own)
    return [row for of in ours.values() for row in beside_mean(of, dataset, published)], notes


def _of_scene(bench: Bench, capture: Capture) -> dict[str, Ours]:
    """What each method scored on a capture, by all that makes it this method's answer but the seed."""
    document = capture_document(bench, capture)
    runs = {run["id"]: run for run in document["runs"]}
    found = {}
    for mean in mean_document(bench, [document])["means"]:
        if not mean["runs"]:
            continue
        asked = bench.run_folder(mean["runs"][0]).asked()
        alike = [asked.method, asked.method_fingerprint, asked.device, mean["budget"], mean["settings"]]
        own = Ours.of_run(runs[mean["runs"][0]], method_as_asked(asked))
        values = {metric: scores["mean"] for metric, scores in mean["scores"].items()}
        found[json.dumps(alike, sort_keys=True)] = replace(own, values=values)
    return found


def method_as_asked(asked: Asked) -> Method | None:
    """The method of a run; None where it has gone or changed since, and nobody can say what it was."""
    with contextlib.suppress(TurntableError):
        method = Method.load(Path(asked.method_folder))
        if method.fingerprint() == asked.method_fingerprint:
            return method
    return None
