"""Published beside reproduced: which published numbers stand for the same as our own, and what sets the others apart.

A number from a paper is set beside ours only where both were measured by one protocol; else each difference is named.
What nobody says of a protocol is unknown, and counts as a difference. Whether a capture is of a data set is known only
where it was said (:mod:`turntable.captures.dataset`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ..captures.capture import Capture
from ..captures.dataset import dataset_of
from ..errors import TurntableError, unknown_name
from ..methods.facts import MEAN, Dataset, Fact, Protocol, Reproduced, read_facts
from .metrics import psnr, ssim

SHIPPED = Path(__file__).parents[1] / "captures" / "published"
"""The facts that come with Turntable."""

SIZE_TOLERANCE_PX = 1.0
"""Halving an odd side is rounded up by some and down by others."""


@dataclass(frozen=True)
class Ours:
    """What a run of ours scored.

    Args:
        method: its method.
        values: by metric, the mean over the held-out views.
        definitions: by metric, what exactly was computed, as stored with the scores.
        budget: as asked, such as ``30000 steps``.
        settings: all of its method's settings.
        reproduces: the published methods that its method implements.
    """

    method: str
    values: Mapping[str, float]
    definitions: Mapping[str, str]
    budget: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reproduces: tuple[Reproduced, ...] = ()

    @classmethod
    def of_run(cls, run: Mapping[str, Any], reproduces: tuple[Reproduced, ...] = ()) -> Ours:
        """What a run scored, from its part of the document that ``turntable scores --json`` prints."""
        return cls(
            method=run["method"],
            values={metric: summary["mean"] for metric, summary in run["scores"].items()},
            definitions=run["definitions"],
            budget=run["budget"],
            settings=run["settings"],
            reproduces=reproduces,
        )


@dataclass(frozen=True)
class Beside:
    """A published number and ours.

    Args:
        value: the published one.
        metric: as our scores call it.
        method: the published method.
        source: where the number stands, and whose measurement it is.
        agrees: whether both were measured by one protocol: only then they may be compared.
        differences: what sets them apart, a few words each.
        ours: our number; None where there is none that could stand beside it.
        our_method: which of our methods that is of.
        same_method: whether our method implements the published one; else it is another method on the same data.
        scene: of the data set, ``mean`` for a mean over scenes.
        dataset: its name.
        checked: whether the published number was read in its source.
        note: what else should be known of it.
        protocol: how it was measured.
    """

    value: float
    metric: str
    method: str
    source: str
    agrees: bool
    differences: tuple[str, ...]
    ours: float | None
    our_method: str
    same_method: bool
    scene: str
    dataset: str
    checked: bool
    note: str
    protocol: Protocol


@dataclass(frozen=True)
class Published:
    """All published numbers that are known."""

    datasets: Mapping[str, Dataset]
    facts: tuple[Fact, ...]

    def on(self, dataset: str, scene: str | None = None) -> tuple[Fact, ...]:
        """The facts on a data set, or on one of its scenes (``mean`` for means)."""
        return tuple(fact for fact in self.facts if fact.dataset == dataset and scene in (None, fact.scene))


def load_published(bench_facts: Path | None = None, of_methods: Iterable[Fact] = ()) -> Published:
    """The facts that came with Turntable, a bench's own, and those of methods.

    Args:
        bench_facts: the bench's ``published/`` folder, or None.
        of_methods: the facts of every method's ``method.toml``.

    Raises:
        TurntableError: a file breaks a rule; the message says which.
    """
    folders = [SHIPPED, *([bench_facts] if bench_facts is not None else [])]
    datasets: dict[str, Dataset] = {}
    facts: list[Fact] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.toml"))):
        dataset, found = read_facts(path)
        datasets.setdefault(dataset.name, dataset)
        facts += found
    for fact in of_methods:
        facts.append(fact)
        datasets.setdefault(fact.dataset, Dataset(fact.dataset, fact.dataset, ()))
    return Published(datasets, tuple(facts))


def find(published: Published, what: str | None) -> tuple[Fact, ...]:
    """The facts on ``DATASET``, on ``DATASET/SCENE``, or all of them.

    Raises:
        TurntableError: there are none; the message lists what there is.
    """
    if what is None:
        return published.facts
    dataset, _, scene = what.partition("/")
    if dataset not in published.datasets:
        raise unknown_name("data set", dataset, published.datasets)
    found = published.on(dataset, scene or None)
    if not found:
        known = {fact.scene for fact in published.on(dataset)}
        raise TurntableError(
            f"Nothing published is known on {what!r}; there is something on {', '.join(sorted(known))} of {dataset}."
        )
    return found


def beside(capture: Capture, ours: Ours, published: Published) -> list[Beside]:
    """The published numbers on a capture's scene, each beside ours of the same metric.

    Those of the method that ours implements come first. [] where nobody said what the capture is of.
    """
    name = dataset_of(capture)
    if name is None:
        return []
    found = []
    for fact in published.on(name.name, name.scene):
        for metric in _metrics_of(fact, ours.values):
            apart = (*_differences(fact, capture, metric, ours), *_training(fact, ours))
            found.append(_row(fact, metric, ours, ours.values[metric], apart))
    return sorted(found, key=lambda row: not row.same_method)


def beside_mean(of: Mapping[str, tuple[Capture, Ours]], dataset: str, published: Published) -> list[Beside]:
    """The published means over scenes of a data set, beside the mean of ours.

    Our mean is there only where it is over the very scenes that the published one is over: each scene's capture must say
    that it is that scene, be scored by that metric, and with one method and setting.

    Args:
        of: by scene, its capture and what a run of one method scored on it.
        dataset: whose scenes they are.
        published: the known facts.

    Raises:
        TurntableError: there is no scene, runs differ in method, settings or budget, or a capture isn't of its scene.
    """
    if not of:
        raise TurntableError(f"A mean over the scenes of {dataset} needs at least one; there is none.")
    _check_alike(of, dataset)
    first = next(iter(of.values()))[1]
    shared = set.intersection(*(set(ours.values) for _, ours in of.values()))
    found = []
    for fact in published.on(dataset, MEAN):
        for metric in _metrics_of(fact, shared):
            apart = list(_scenes_apart(fact, of, published.datasets[dataset]))
            mean = None if apart else sum(ours.values[metric] for _, ours in of.values()) / len(of)
            for scene, (capture, ours) in sorted(of.items()):
                apart += [
                    text for text in _differences(fact, capture, metric, ours, scene) if text not in apart
                ]
            found.append(_row(fact, metric, first, mean, (*apart, *_training(fact, first))))
    return sorted(found, key=lambda row: not row.same_method)


def _row(fact: Fact, metric: str, ours: Ours, value: float | None, apart: Sequence[str]) -> Beside:
    whose = f"{fact.source}; measured by {fact.by}" if fact.by else fact.source
    return Beside(
        value=fact.value,
        metric=metric,
        method=fact.method,
        source=whose,
        agrees=not apart,
        differences=tuple(apart),
        ours=value,
        our_method=ours.method,
        same_method=is_same_method(fact, ours),
        scene=fact.scene,
        dataset=fact.dataset,
        checked=fact.checked,
        note=fact.note,
        protocol=fact.protocol,
    )


def is_same_method(fact: Fact, ours: Ours) -> bool:
    """Whether our run's method, with the settings that it had, implements the one that a fact is on."""
    if fact.method == ours.method:
        return _has(ours.settings, fact.settings)
    return any(
        entry.method == fact.method and _has(ours.settings, entry.settings) for entry in ours.reproduces
    )


def _has(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(settings.get(name) == value for name, value in wanted.items())


def _metrics_of(fact: Fact, ours: Iterable[str]) -> list[str]:
    """Our metrics that may stand beside a fact's: LPIPS is called after its net and range."""
    return [
        name for name in ours if name == fact.metric or (fact.metric == "lpips" and name.startswith("lpips-"))
    ]


def _check_alike(of: Mapping[str, tuple[Capture, Ours]], dataset: str) -> None:
    first = next(iter(of.values()))[1]
    for scene, (capture, ours) in of.items():
        said = dataset_of(capture)
        if said is None or (said.name, said.scene) != (dataset, scene):
            raise TurntableError(
                f"A mean over {dataset} takes captures that are said to be of it; {capture.name} is said to be of "
                f"{said or 'nothing'}, not of {dataset}/{scene}."
            )
        for what, theirs, mine in (
            ("methods", ours.method, first.method),
            ("settings", dict(ours.settings), dict(first.settings)),
            ("budgets", ours.budget, first.budget),
        ):
            if theirs != mine:
                raise TurntableError(
                    f"Scores of different {what} are never put into one mean; got {mine!r} and {theirs!r}. "
                    "Compare them one by one."
                )


def _scenes_apart(fact: Fact, of: Mapping[str, Any], dataset: Dataset) -> Iterable[str]:
    theirs, all_of_them = fact.protocol.scenes, len(dataset.scenes)
    if not theirs and fact.protocol.scene_count is None:
        yield "over which scenes the mean is, isn't said"
    elif not theirs:
        yield f"a mean of {fact.protocol.scene_count} of {all_of_them} scenes, which of them isn't said; ours is of {len(of)}"
    elif set(theirs) != set(of):
        missing = [scene for scene in theirs if scene not in of]
        more = [scene for scene in of if scene not in theirs]
        words = f"{len(theirs)} of {all_of_them} scenes, ours is of {len(of)}"
        words += f"; ours lacks {', '.join(missing)}" if missing else ""
        yield words + (f"; theirs lacks {', '.join(more)}" if more else "")


def _training(fact: Fact, ours: Ours) -> Iterable[str]:
    """What sets the training apart, where both are of one method: other methods are compared as they are."""
    if not is_same_method(fact, ours):
        return
    if not fact.budget:
        yield "how long it was trained isn't said"
    elif fact.budget.replace(" ", "") != ours.budget.replace(" ", ""):
        yield f"trained for {fact.budget}, ours for {ours.budget or 'an unknown budget'}"


def _differences(
    fact: Fact, capture: Capture, metric: str, ours: Ours, scene: str | None = None
) -> Iterable[str]:
    """What sets the protocol of a fact apart from that of our scores on a capture, in words."""
    protocol = fact.protocol
    if protocol.task is None:
        yield "what was asked for (which task) isn't said"
    elif protocol.task != "views":
        yield f"task {protocol.task}, ours is views"
    yield from _split(protocol, capture)
    yield from _background(protocol, capture)
    yield from _size(protocol, capture, scene or fact.scene)
    yield from _comparison(protocol, metric, ours)
    if any(view.mask_path is not None for view in capture.held_out):
        yield "ours is scored under masks"


def _split(protocol: Protocol, capture: Capture) -> Iterable[str]:
    count = len(capture.held_out)
    if protocol.views is not None and protocol.views != count:
        yield f"{protocol.views} held-out views, ours are {count}"
    names = sorted(view.name for view in capture.views)
    held_out = {view.name for view in capture.held_out}
    if protocol.split is None:
        yield "how views were held out isn't said"
    elif protocol.split == "own" and not _has_test_views(capture):
        yield "the data set's own test views, ours are others"
    elif protocol.split == "every 8th" and held_out != set(names[::8]):
        yield "every 8th view held out, ours are others"
    if capture.left_out:
        yield f"all photos of the data set, ours left out {len(capture.left_out)}"


def _has_test_views(capture: Capture) -> bool:
    """Whether what is held out is what lies in the data set's folder ``test``, and nothing else does."""
    return all(view.held_out == (PurePath(view.name).parts[0] == "test") for view in capture.views)


_COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def _background(protocol: Protocol, capture: Capture) -> Iterable[str]:
    theirs = protocol.background
    names = {colour: name for name, colour in _COLOURS.items()}
    colour = "#" + "".join(f"{round(channel * 255):02x}" for channel in capture.background)
    mine = names.get(tuple(capture.background), colour) if capture.has_alpha else None
    if theirs is None:
        if mine is not None:
            yield f"which background isn't said, ours is {mine}"
    elif theirs == "none":
        if mine is not None:
            yield f"photos without alpha, ours had some and are on {mine}"
    elif mine is None:
        yield f"{theirs} background, our photos had no alpha to put on it"
    elif mine != theirs:
        yield f"{theirs} background, ours is {mine}"


def _size(protocol: Protocol, capture: Capture, scene: str) -> Iterable[str]:
    sizes = sorted({(view.camera.width, view.camera.height) for view in capture.held_out})
    mine = ", ".join(f"{width}×{height}" for width, height in sizes[:3])
    if protocol.size is not None:
        if sizes != [protocol.size]:
            yield f"{protocol.size[0]}×{protocol.size[1]} pixels, ours {mine}"
        elif any(_resized(view) for view in capture.held_out):
            yield "ours are resized by Turntable"
        return
    factor = protocol.factors.get(scene)
    if factor is None:
        yield f"at which size isn't said, ours is {mine}"
        return
    if not all(_is_smaller_by(view, factor) for view in capture.held_out):
        yield f"{factor:g} times smaller than the photos, ours is not ({mine})"
    if protocol.resized_by_authors is None:
        yield "who made the smaller pictures isn't said"
    elif protocol.resized_by_authors:
        yield "resized by the authors"
    elif any(_resized(view) or _own_factor(view) == 1 != factor for view in capture.held_out):
        yield "the data set's own smaller pictures, ours are resized by Turntable"


def _resized(view: Any) -> bool:
    origin = view.origin
    return (origin["width"], origin["height"]) != (view.camera.width, view.camera.height)


def _own_factor(view: Any) -> int:
    """How many times smaller a photo is by the folder that the data set keeps it in: 4 in ``images_4``."""
    match = re.fullmatch(r"images_(\d+)", PurePath(view.origin["path"]).parent.name)
    return int(match[1]) if match else 1


def _is_smaller_by(view: Any, factor: float) -> bool:
    still = factor / _own_factor(view)
    sides = ((view.origin["width"], view.camera.width), (view.origin["height"], view.camera.height))
    return all(abs(photo / still - mine) <= SIZE_TOLERANCE_PX for photo, mine in sides)


def _comparison(protocol: Protocol, metric: str, ours: Ours) -> Iterable[str]:
    """What sets apart how pictures were compared: 8-bit or not, and what the metric is exactly."""
    if protocol.pictures is None:
        yield "whether 8-bit pictures were compared isn't said; ours are"
    elif protocol.pictures != "8-bit":
        yield "compared as floats, ours as 8-bit pictures"
    definition = ours.definitions.get(metric, "")
    present = {"psnr": psnr.DEFINITION, "ssim": ssim.DEFINITION}
    if metric in present and definition != present[metric]:
        yield f"our {metric} is of another definition than this Turntable's"
    if metric == "ssim":
        if protocol.ssim is None:
            yield "what SSIM does at the edges isn't said; ours takes the valid region"
        elif protocol.ssim != "valid":
            yield f"SSIM {protocol.ssim}; ours: valid region"
    if metric.startswith("lpips-"):
        mine = metric.removeprefix("lpips-").replace("-0.1", "", 1)
        if protocol.lpips is None:
            yield f"LPIPS's net and input range aren't said; ours: {mine}"
        elif protocol.lpips != mine:
            yield f"LPIPS {protocol.lpips}; ours: {mine}"
    if metric == "flip":
        yield "how ꟻLIP was computed isn't said"
