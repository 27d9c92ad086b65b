"""Published beside reproduced: which published numbers stand for the same as our own, and what sets the others apart.

A number from a paper is set beside ours only where both were measured by one protocol; else each difference is named.
What nobody says of a protocol is unknown, and counts as a difference. Whether a capture is of a data set is known only
where it was said (:mod:`turntable.captures.dataset`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..captures.capture import Capture
from ..captures.dataset import dataset_of
from ..errors import TurntableError, unknown_name
from ..methods.facts import MEAN, Cost, Dataset, Fact, Protocol, Reproduced, read_facts
from ..methods.spec import Method
from .protocols import differences

SHIPPED = Path(__file__).parents[1] / "captures" / "published"
"""The facts that come with Turntable."""


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
        changed: those of the settings that aren't as its method has them where nobody says; None where its method has gone
            since, and nobody can say.
    """

    method: str
    values: Mapping[str, float]
    definitions: Mapping[str, str]
    budget: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reproduces: tuple[Reproduced, ...] = ()
    changed: Mapping[str, Any] | None = field(default_factory=dict)

    @classmethod
    def of_run(cls, run: Mapping[str, Any], method: Method | None) -> Ours:
        """What a run scored.

        Args:
            run: its part of the document that ``turntable scores --json`` prints.
            method: as it was when it was asked to run; None where nobody knows any more.
        """
        usual = {name: setting.default for name, setting in method.settings.items()} if method else {}
        return cls(
            method=run["method"],
            values={metric: summary["mean"] for metric, summary in run["scores"].items()},
            definitions=run["definitions"],
            budget=run["budget"],
            settings=run["settings"],
            reproduces=method.reproduces if method else (),
            changed={name: value for name, value in run["settings"].items() if usual.get(name) != value}
            if method
            else None,
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
        budget, cost: what the published method was trained for, and what that took, where it is said.
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
    budget: str = ""
    cost: Cost = field(default_factory=Cost)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON."""
        found = {part.name: getattr(self, part.name) for part in fields(self)}
        return {**found, "protocol": self.protocol.to_json(), "cost": self.cost.to_json()}


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
        if fact not in facts:  # two versions of a method tell the same
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
            apart = (
                *differences(fact.protocol, capture, fact.scene, metric, ours.definitions.get(metric, "")),
                *_training(fact, ours),
            )
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
            if len({ours.definitions.get(metric) for _, ours in of.values()}) > 1:
                apart.append(f"our scenes are scored by different definitions of {metric}: score them anew")
            mean = None if apart else sum(ours.values[metric] for _, ours in of.values()) / len(of)
            for scene, (capture, ours) in sorted(of.items()):
                apart += [
                    text
                    for text in differences(
                        fact.protocol, capture, scene, metric, ours.definitions.get(metric, "")
                    )
                    if text not in apart
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
        budget=fact.budget,
        cost=fact.cost,
    )


def is_same_method(fact: Fact, ours: Ours) -> bool:
    """Whether our run's method, with the settings that it had, implements the one that a fact is on."""
    return _as_published(fact, ours) is not None


def _as_published(fact: Fact, ours: Ours) -> Mapping[str, Any] | None:
    """The settings with which our run's method, as it ran, is the published one; None where it isn't."""
    if fact.method == ours.method:
        return fact.settings if _has(ours.settings, fact.settings) else None
    named = (entry.settings for entry in ours.reproduces if entry.method == fact.method)
    return next((settings for settings in named if _has(ours.settings, settings)), None)


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
        count = fact.protocol.scene_count
        yield f"a mean of {count} of {all_of_them} scenes, which of them isn't said; ours is of {len(of)}"
    elif set(theirs) != set(of):
        missing = [scene for scene in theirs if scene not in of]
        more = [scene for scene in of if scene not in theirs]
        words = f"{len(theirs)} of {all_of_them} scenes, ours is of {len(of)}"
        words += f"; ours lacks {', '.join(missing)}" if missing else ""
        yield words + (f"; theirs lacks {', '.join(more)}" if more else "")


def _training(fact: Fact, ours: Ours) -> Iterable[str]:
    """What sets the training apart, where both are of one method: other methods are compared as they are."""
    named = _as_published(fact, ours)
    if named is None:
        return
    if ours.changed is None:
        yield "the code that ours ran has changed since, so that its usual settings aren't known"
    for name, value in (ours.changed or {}).items():
        if name not in named:
            yield f"ours has {name}={value}, which is not what {ours.method} usually has"
    if not fact.budget:
        yield "how long it was trained isn't said"
    elif fact.budget.replace(" ", "") != ours.budget.replace(" ", ""):
        yield f"trained for {fact.budget}, ours for {ours.budget or 'an unknown budget'}"
