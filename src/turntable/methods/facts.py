"""Published numbers: facts from papers, each with the protocol that it was measured by and its source.

They stand as ``[[published]]`` tables in a ``method.toml``, in ``captures/published/*.toml`` and in a bench's
``published/*.toml``, in one format::

    [[published]]
    dataset = "nerf_synthetic"              # or capture = "nerf_synthetic/lego", with one number for each metric
    method = "3DGS"                         # in a method.toml: the method itself, where left out
    psnr = { lego = 35.78, mean = 33.31 }   # a number for each scene; `mean` is over `scenes` of the protocol
    protocol = { views = 200, background = "white" }   # or a text, which a machine can't compare
    source = "…"

A part of a protocol that isn't said is unknown, which is something else than equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import TurntableError, unknown_name
from ..files import read_toml

MEAN = "mean"
"""What stands in the place of a scene for the mean over scenes."""

METRICS = ("psnr", "ssim", "lpips", "flip", "chamfer")
"""The metrics that facts may give; chamfer in the unit that the protocol says."""

_WORDS = {
    "task": ("views", "surface"),
    "split": ("own", "every 8th"),
    "background": ("white", "black", "none"),
    "pictures": ("8-bit", "float"),
    "ssim": ("valid", "zero-padded", "reflected"),
    "lpips": ("vgg[-1,1]", "vgg[0,1]", "alex[-1,1]", "alex[0,1]"),
}


@dataclass(frozen=True)
class Protocol:
    """How a published number was measured; None or () where nobody says.

    Args:
        task: ``views`` or ``surface``.
        views, training: held-out views and training views of the scene.
        split: ``own`` (the data set's own test views) or ``every 8th`` (by name, the first included).
        background: what alpha was composited onto: ``white``, ``black``; ``none`` where photos have no alpha.
        size: width and height of the pictures in pixels.
        factors: by scene, how many times smaller than the data set's photos the pictures were.
        resized_by_authors: whether the method's authors made the smaller pictures, instead of taking the data set's.
        pictures: whether ``8-bit`` pictures or clamped ``float`` ones were compared.
        ssim: what SSIM does at the picture's edge: ``valid`` windows only, ``zero-padded``, ``reflected``.
        lpips: net and input range.
        scenes: the names of those that a mean is over.
        scene_count: how many there are, where their names aren't said.
        unit: of a length.
        hardware: what it was trained on.
        text: what else is known, in words.
    """

    task: str | None = None
    views: int | None = None
    training: int | None = None
    split: str | None = None
    background: str | None = None
    size: tuple[int, int] | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    resized_by_authors: bool | None = None
    pictures: str | None = None
    ssim: str | None = None
    lpips: str | None = None
    scenes: tuple[str, ...] = ()
    scene_count: int | None = None
    unit: str | None = None
    hardware: str | None = None
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON."""
        found = {part.name: getattr(self, part.name) for part in fields(self)}
        known = {name: value for name, value in found.items() if value not in (None, (), {}, "")}
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if name == "factors" else value
            for name, value in known.items()
        }


@dataclass(frozen=True)
class Cost:
    """What a published result took: seconds of training, frames per second, and the hardware ("" where nobody says)."""

    training_s: float | None = None
    frames_per_s: float | None = None
    hardware: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON."""
        return {key: value for key, value in vars(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Fact:
    """One published number.

    Args:
        dataset, scene: what it was measured on; the scene is ``mean`` for a mean over scenes.
        method: as its authors call it; in a ``method.toml`` the method's name.
        metric, value: one of :data:`METRICS`.
        protocol: how.
        source: where it stands.
        by: whose measurement it is, where it isn't the authors' paper's.
        checked: whether the number was read in its source when it was written down here, not recalled or passed on.
        budget, settings: what it was trained with, where that is said.
        note: what else should be known.
        cost: what it took.
    """

    dataset: str
    scene: str
    method: str
    metric: str
    value: float
    protocol: Protocol
    source: str
    by: str = ""
    checked: bool = True
    budget: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    cost: Cost = field(default_factory=Cost)

    def to_json(self) -> dict[str, Any]:
        """The fact as JSON."""
        found = {part.name: getattr(self, part.name) for part in fields(self)}
        protocol, cost = self.protocol.to_json(), self.cost.to_json()
        return {**found, "protocol": protocol, "settings": dict(self.settings), "cost": cost}


@dataclass(frozen=True)
class Reproduced:
    """That a method is another implementation of a published one, when it is run with some settings."""

    method: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A data set that numbers were published on: its name, what it is called, and its scenes."""

    name: str
    title: str
    scenes: tuple[str, ...]


def read_facts(path: Path) -> tuple[Dataset, tuple[Fact, ...]]:
    """A file of facts on one data set, such as those in ``captures/published``.

    Raises:
        TurntableError: it breaks a rule; the message says which.
    """
    table = read_toml(path)
    known = ("dataset", "title", "scenes", "protocol", "published")
    for key in table:
        if key not in known:
            raise unknown_name(f"key in {path}:", key, known)
    name, title = _text(path, table, "dataset"), _text(path, table, "title")
    scenes = tuple(_texts(path, "scenes", table.get("scenes")))
    shared = parse_protocol(path, table.get("protocol", {}))
    entries = table.get("published")
    if not isinstance(entries, list) or not entries:
        raise TurntableError(
            f"{path}: [[published]] must be a list of tables with at least one, not {entries!r}."
        )
    found = parse_facts(path, entries, None, shared)
    for fact in found:
        if fact.dataset != name:
            raise TurntableError(
                f"{path}: every fact must be on its dataset {name!r}, not on {fact.dataset!r}."
            )
        if fact.scene not in (*scenes, MEAN):
            raise unknown_name(f"scene in {path}:", fact.scene, (*scenes, MEAN))
    return Dataset(name, title, scenes), tuple(
        replace(fact, protocol=_with_scenes(fact.protocol, scenes)) for fact in found
    )


def _with_scenes(protocol: Protocol, scenes: tuple[str, ...]) -> Protocol:
    """A mean over as many scenes as there are is over all of them."""
    all_of_them = not protocol.scenes and protocol.scene_count == len(scenes)
    return replace(protocol, scenes=scenes) if all_of_them else protocol


def parse_facts(
    path: Path, entries: Any, method: str | None, shared: Protocol | None = None
) -> tuple[Fact, ...]:
    """The facts in the ``[[published]]`` tables of a file.

    Args:
        path: the file, for messages.
        entries: what it holds as ``published``.
        method: whose they are, where an entry names none; None if each must.
        shared: the protocol that an entry's own parts are added to.

    Raises:
        TurntableError: an entry breaks a rule; the message says which.
    """
    if not isinstance(entries, list):
        raise TurntableError(f"{path}: [[published]] must be a list of tables, not {entries!r}.")
    return tuple(
        fact
        for number, entry in enumerate(entries, 1)
        for fact in _entry(path, number, entry, method, shared)
    )


_KEYS = (
    "dataset",
    "capture",
    "method",
    "protocol",
    "source",
    "by",
    "checked",
    "budget",
    "settings",
    "note",
    "cost",
)


def _entry(path: Path, number: int, entry: Any, method: str | None, shared: Protocol | None) -> list[Fact]:
    where = f"published entry {number}"
    if not isinstance(entry, dict):
        raise TurntableError(f"{path}: {where} must be a table, not {entry!r}.")
    for key in entry:
        if key not in (*_KEYS, *METRICS):
            raise unknown_name(f"key of {where} in {path}:", key, (*_KEYS, *METRICS))
    if ("dataset" in entry) == ("capture" in entry):
        raise TurntableError(
            f"{path}: {where} needs either dataset, or capture as 'dataset/scene'; it has "
            f"{'both' if 'dataset' in entry else 'neither'}."
        )
    scene = ""
    if "capture" in entry:
        dataset, _, scene = _text(path, entry, "capture", where).rpartition("/")
        if not dataset or not scene:
            raise TurntableError(
                f"{path}: {where}: capture must be 'dataset/scene', not {entry['capture']!r}."
            )
    else:
        dataset = _text(path, entry, "dataset", where)
    who = _text(path, entry, "method", where) if method is None or "method" in entry else method
    protocol = parse_protocol(path, entry.get("protocol"), shared, where)
    found = [
        Fact(
            dataset=dataset,
            scene=name,
            method=who,
            metric=metric,
            value=value,
            protocol=protocol,
            source=_text(path, entry, "source", where),
            by=_text(path, entry, "by", where) if "by" in entry else "",
            checked=_of_type(path, where, "checked", entry.get("checked", True), bool, "true or false"),
            budget=_text(path, entry, "budget", where) if "budget" in entry else "",
            settings=_of_type(path, where, "settings", entry.get("settings", {}), dict, "a table"),
            note=_text(path, entry, "note", where) if "note" in entry else "",
            cost=_cost(path, where, entry.get("cost", {})),
        )
        for metric in METRICS
        if metric in entry
        for name, value in _numbers(path, where, metric, entry[metric], scene).items()
    ]
    if not found:
        raise TurntableError(f"{path}: {where} needs a number for one of {', '.join(METRICS)}; it has none.")
    return found


def _numbers(path: Path, where: str, metric: str, value: Any, scene: str) -> dict[str, float]:
    if scene:
        return {scene: _number(path, where, metric, value)}
    if not isinstance(value, dict) or not value:
        raise TurntableError(
            f"{path}: {where}: {metric} must be a table of numbers by scene, such as {{ lego = 35.78 }}, not {value!r}."
        )
    return {str(name): _number(path, where, f"{metric}.{name}", number) for name, number in value.items()}


def _number(path: Path, where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TurntableError(f"{path}: {where}: {key} must be a finite number, not {value!r}.")
    return float(value)


def _cost(path: Path, where: str, value: Any) -> Cost:
    table = _of_type(path, where, "cost", value, dict, "a table")
    for key in table:
        if key not in ("training_s", "frames_per_s", "hardware"):
            raise unknown_name(
                f"key of cost of {where} in {path}:", key, ("training_s", "frames_per_s", "hardware")
            )
    numbers = {
        key: _number(path, where, f"cost.{key}", table[key])
        for key in ("training_s", "frames_per_s")
        if key in table
    }
    return Cost(
        hardware=_of_type(path, where, "cost.hardware", table.get("hardware", ""), str, "a text"), **numbers
    )


def parse_protocol(
    path: Path, value: Any, shared: Protocol | None = None, where: str = "the file"
) -> Protocol:
    """A protocol from a table, or from a text that says it in words alone.

    Args:
        path, where: the file and the place in it, for messages.
        value: what stands there; None is nothing.
        shared: what holds where the table says nothing.

    Raises:
        TurntableError: an unknown part, or a value of the wrong kind.
    """
    shared = shared or Protocol()
    if value is None:
        return shared
    if isinstance(value, str):
        return replace(shared, text=value)
    if not isinstance(value, dict):
        raise TurntableError(f"{path}: {where}: protocol must be a table or a text, not {value!r}.")
    known = [part.name for part in fields(Protocol) if part.name != "scene_count"]
    found: dict[str, Any] = {}
    for key, part in value.items():
        if key not in known:
            raise unknown_name(f"part of the protocol of {where} in {path}:", key, known)
        found |= _PARTS[key](path, where, key, part)
    return replace(shared, **found)


def _word(path: Path, where: str, key: str, value: Any) -> dict[str, Any]:
    if value not in _WORDS[key]:
        raise unknown_name(f"{key} in the protocol of {where} in {path}:", str(value), _WORDS[key])
    return {key: value}


def _count(path: Path, where: str, key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TurntableError(f"{path}: {where}: {key} must be a whole number of at least 1, not {value!r}.")
    return {key: value}


def _size(path: Path, where: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise TurntableError(f"{path}: {where}: {key} must be [width, height] in pixels, not {value!r}.")
    return {key: tuple(_count(path, where, key, side)[key] for side in value)}


def _factors(path: Path, where: str, key: str, value: Any) -> dict[str, Any]:
    table = _of_type(path, where, key, value, dict, "a table of numbers by scene")
    return {
        key: {str(scene): _number(path, where, f"{key}.{scene}", number) for scene, number in table.items()}
    }


def _scenes(path: Path, where: str, key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        names = tuple(_texts(path, f"{where}: {key}", value))
        return {"scenes": names, "scene_count": len(names)}
    return {"scenes": (), "scene_count": _count(path, where, key, value)[key]}


def _flag(path: Path, where: str, key: str, value: Any) -> dict[str, Any]:
    return {key: _of_type(path, where, key, value, bool, "true or false")}


def _plain(path: Path, where: str, key: str, value: Any) -> dict[str, Any]:
    return {key: _of_type(path, where, key, value, str, "a text")}


_PARTS: dict[str, Callable[[Path, str, str, Any], dict[str, Any]]] = {
    **dict.fromkeys(_WORDS, _word),
    "views": _count,
    "training": _count,
    "size": _size,
    "factors": _factors,
    "scenes": _scenes,
    "resized_by_authors": _flag,
    "unit": _plain,
    "hardware": _plain,
    "text": _plain,
}


def parse_reproduced(path: Path, entries: Any) -> tuple[Reproduced, ...]:
    """The ``[[reproduces]]`` tables of a ``method.toml``: which published methods it implements, with which settings.

    Raises:
        TurntableError: one breaks a rule; the message says which.
    """
    if not isinstance(entries, list):
        raise TurntableError(f"{path}: [[reproduces]] must be a list of tables, not {entries!r}.")
    found = []
    for number, entry in enumerate(entries, 1):
        where = f"reproduces entry {number}"
        table = _of_type(path, where, "it", entry, dict, "a table")
        for key in table:
            if key not in ("method", "settings"):
                raise unknown_name(f"key of {where} in {path}:", key, ("method", "settings"))
        settings = _of_type(path, where, "settings", table.get("settings", {}), dict, "a table")
        found.append(Reproduced(_text(path, table, "method", where), settings))
    return tuple(found)


def _of_type(path: Path, where: str, key: str, value: Any, kind: type, words: str) -> Any:
    if not isinstance(value, kind):
        raise TurntableError(f"{path}: {where}: {key} must be {words}, not {value!r}.")
    return value


def _text(path: Path, table: Mapping[str, Any], key: str, where: str = "") -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise TurntableError(f"{path}: {where + ': ' if where else ''}{key} must be a text, not {value!r}.")
    return value


def _texts(path: Path, key: str, value: Any) -> Sequence[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise TurntableError(f"{path}: {key} must be a list of texts with at least one, not {value!r}.")
    return value
