"""``method.toml``: what a method is, read and checked without running anything of it.

A program's commands (``[run] kind = "command"``) are *templates*: texts with placeholders in braces, ``{out}``, which
may carry a format spec as in Python, ``{index:05d}``; ``{{`` and ``}}`` stand for the braces themselves.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from ..errors import TurntableError, unknown_name
from ..files import read_toml
from .facts import Fact, Reproduced, parse_facts, parse_reproduced

TASKS = ("views", "surface", "personalise", "edit")
"""Every task of the design; which of them this version can ask is ``turntable.tasks``' business."""

DEVICES = ("cpu", "cuda")
"""Kinds of devices; a method that names none in ``devices`` is taken to run on each."""

ENVIRONMENTS = ("host", "uv", "container")
"""Where a method may live; ``host`` is the interpreter that Turntable itself runs on."""

Value = bool | int | float | str

COMMAND_PLACEHOLDERS = ("capture", "out", "cameras", "steps", "seconds", "seed", "device", "python")
"""What ``train`` and ``render`` of a program may hold, besides ``settings.NAME`` for each of its settings."""

VIEWS_PLACEHOLDERS = ("out", "name", "stem", "index")
"""What ``views`` of a program may hold; :func:`turntable.tasks.renderings.find_renderings` says what they mean."""

_NUMBERS: dict[str, Value] = {"steps": 1, "seconds": 1.0, "seed": 0, "index": 0}
"""The placeholders that are numbers, with an example of each: format specs are tried on it."""


@dataclass(frozen=True)
class Setting:
    """One of a method's settings: its name, default, help, and what values it takes."""

    name: str
    default: Value
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Value, ...] = ()

    def parse(self, text: str) -> Value:
        """The value that ``text`` (from a command line) means, checked.

        Raises:
            TurntableError: it is of another type than the default, or outside of what is allowed.
        """
        try:
            return self.check(_parse_as(type(self.default), text))
        except ValueError:
            kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(self.default)]
            raise TurntableError(f"Setting {self.name} takes {kind}, not {text!r}.") from None

    def check(self, value: Value) -> Value:
        """The value, if it is allowed.

        Raises:
            TurntableError: it is outside of ``minimum`` … ``maximum`` or not among ``choices``.
        """
        if self.choices and value not in self.choices:
            raise TurntableError(
                f"Setting {self.name} takes one of {', '.join(map(str, self.choices))}, not {value!r}."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise TurntableError(f"Setting {self.name} takes a finite number, not {value!r}.")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise TurntableError(f"Setting {self.name} is at least {self.minimum:g}, not {value!r}.")
            if self.maximum is not None and value > self.maximum:
                raise TurntableError(f"Setting {self.name} is at most {self.maximum:g}, not {value!r}.")
        return value


@dataclass(frozen=True)
class CommandRun:
    """How a program is run, as ``[run]`` of its ``method.toml`` says; see :meth:`words` for the templates.

    Args:
        train: the command that trains.
        render: the command that renders the held-out views, or None where ``train`` leaves them.
        views: where each held-out view's rendering lies; may hold ``*`` and ``?``.
    """

    train: str
    render: str | None
    views: str

    def words(self, template: str, values: Mapping[str, Any]) -> list[str]:
        """The command that ``template`` (``train`` or ``render``) means, as words for the operating system.

        It is split as a shell would and filled in afterwards: a value with spaces or quotes stays in its one word, and
        no shell ever sees it. Numbers keep Python's notation, and true and false are ``True`` and ``False``.

        Args:
            template: as ``method.toml`` gives it.
            values: by placeholder; ``values["settings"]`` holds the settings by name.

        Raises:
            TurntableError: the template asks for something that has no value (missing, or None).
        """
        known = {key: value for key, value in values.items() if key != "settings"}
        known |= {f"settings.{name}": value for name, value in values.get("settings", {}).items()}

        def fill(word: str) -> str:
            filled = ""
            for literal, name, spec, _ in Formatter().parse(word):
                filled += literal
                if name is None:
                    continue
                if known.get(name) is None:
                    raise TurntableError(
                        f"A command's placeholders need values, but this run has none for {{{name}}} of {template!r}."
                    )
                filled += _formatted(known[name], spec or "")
            return filled

        return [fill(word) for word in _split(template)]

    def takes(self, budget_kind: Literal["steps", "seconds"]) -> str | None:
        """None if the program can be given a budget of this kind, else one line saying why not.

        One that is told neither steps nor seconds has a length of its own, and takes either.
        """
        told = {
            name
            for word in _split(self.train)
            for _, name, _, _ in Formatter().parse(word)
            if name in ("steps", "seconds")
        }
        if not told or budget_kind in told:
            return None
        other, example = ("seconds", "90s") if budget_kind == "steps" else ("steps", "2000steps")
        return (
            f"A budget in {budget_kind} needs {{{budget_kind}}} in run.train, which has only {{{other}}}: "
            f"give this method one in {other}, such as {example}."
        )


@dataclass(frozen=True)
class Method:
    """A method as its ``method.toml`` describes it.

    Args:
        folder: where it lies.
        name: the folder's name.
        task: what it answers.
        title: its full name, for people.
        license: SPDX expression, or "".
        paper: ``title``, ``year``, ``url``, or None.
        environment: ``kind`` and what that kind needs.
        run: ``kind`` and ``entry`` (a Python class), or the commands of a program.
        settings: by name.
        published: facts from papers, with the protocol that they used, as ``method.toml`` has them.
        facts: the same, one for each number.
        reproduces: the published methods that it implements, each with the settings that make it so.
        origin: ``built in``, ``bench`` or ``folder``.
        devices: the kinds of device that it runs on.
    """

    folder: Path
    name: str
    task: str
    title: str
    license: str
    paper: dict[str, Any] | None
    environment: dict[str, Any]
    run: dict[str, Any]
    settings: dict[str, Setting] = field(default_factory=dict)
    published: tuple[dict[str, Any], ...] = ()
    facts: tuple[Fact, ...] = ()
    reproduces: tuple[Reproduced, ...] = ()
    origin: str = "bench"
    devices: tuple[str, ...] = DEVICES

    @classmethod
    def load(cls, folder: Path, origin: str = "bench", elsewhere: bool = False) -> Method:
        """Read ``folder/method.toml``.

        Args:
            folder: where it lies.
            origin: as of the method.
            elsewhere: whether the folder may be called anything, since it is on its way to a bench.

        Raises:
            TurntableError: it is missing, is no TOML, or breaks a rule; the message says which.
        """
        path = folder / "method.toml"
        try:
            table = read_toml(path)
        except FileNotFoundError:
            raise TurntableError(
                f"A method is a folder with a method.toml; there is none in {folder}."
            ) from None
        name = _text(path, table, "name")
        if name != folder.name and not elsewhere:
            raise TurntableError(f"{path}: name must be the folder's name {folder.name!r}, not {name!r}.")
        task = _text(path, table, "task")
        if task not in TASKS:
            raise unknown_name(f"task in {path}:", task, TASKS)
        environment = _table(path, table, "environment")
        kind = environment.get("kind")
        if kind not in ENVIRONMENTS:
            raise unknown_name(f"environment kind in {path}:", str(kind), ENVIRONMENTS)
        run = _table(path, table, "run")
        if run.get("kind") not in ("python", "command"):
            raise unknown_name(f"run kind in {path}:", str(run.get("kind")), ("python", "command"))
        if run["kind"] == "python":
            module, _, class_name = str(run.get("entry", "")).partition(":")
            if not (module and class_name.isidentifier()):
                raise TurntableError(f"{path}: run.entry must be 'module:Class', not {run.get('entry')!r}.")
        settings = table.get("settings", {})
        if not isinstance(settings, dict):
            raise TurntableError(
                f"{path}: settings must be a table of tables, not {type(settings).__name__}."
            )
        parsed = {key: _setting(path, key, entry) for key, entry in settings.items()}
        if run["kind"] == "command":
            _check_command(path, run, parsed)
        return cls(
            folder=folder,
            name=name,
            task=task,
            title=_text(path, table, "title"),
            license=str(table.get("license", "")),
            paper=table.get("paper"),
            environment=environment,
            run=run,
            settings=parsed,
            published=tuple(table.get("published", ())),
            facts=parse_facts(path, table.get("published", []), name),
            reproduces=parse_reproduced(path, table.get("reproduces", [])),
            origin=origin,
            devices=_devices(path, table),
        )

    @property
    def is_program(self) -> bool:
        """Whether it is any program, by :attr:`command`; else it is a Python class."""
        return self.run["kind"] == "command"

    @property
    def command(self) -> CommandRun:
        """How the program is run; only for methods whose ``run["kind"]`` is ``command``."""
        assert self.run["kind"] == "command", f"method {self.name} is no program"
        return CommandRun(self.run["train"], self.run.get("render"), self.run["views"])

    def configure(self, given: dict[str, str]) -> dict[str, Value]:
        """All settings, with those ``given`` (as text) in place of their defaults.

        Raises:
            TurntableError: an unknown setting or a value that it doesn't take.
        """
        for name in given:
            if name not in self.settings:
                raise unknown_name(f"setting of method {self.name}:", name, self.settings)
        return {
            name: setting.parse(given[name]) if name in given else setting.default
            for name, setting in self.settings.items()
        }

    def fingerprint(self) -> str:
        """The sha256 of the method's own files: a run only goes on with the code that it began with.

        Compiled files and caches don't count; a kernel counts by its source.
        """
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            skipped = {"__pycache__", ".git"} & set(path.relative_to(self.folder).parts)
            if path.is_file() and not skipped and path.suffix not in {".pyc", ".so", ".dylib"}:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(self.folder).as_posix()}\0{content}\n".encode())
        return digest.hexdigest()


def _check_command(path: Path, run: dict[str, Any], settings: dict[str, Setting]) -> None:
    for key in run:
        if key not in ("kind", "train", "render", "views"):
            raise unknown_name(f"key of [run] in {path}:", key, ("kind", "train", "render", "views"))
    examples = {name: _NUMBERS.get(name, "text") for name in COMMAND_PLACEHOLDERS}
    examples |= {f"settings.{name}": setting.default for name, setting in settings.items()}
    for key in ("train", "render") if "render" in run else ("train",):
        template = _template(path, run, key)
        try:
            words = _split(template)
        except ValueError as error:
            raise TurntableError(
                f"{path}: run.{key} must be quoted as for a shell ({error}), not {template!r}; "
                f"known placeholders: {_braced(examples)}."
            ) from None
        if not words or not words[0]:
            raise TurntableError(f"{path}: run.{key} must begin with a program, not {template!r}.")
        _check_template(f"run.{key}", path, template, words, examples)
    _check_views(path, _template(path, run, "views"))


def _check_views(path: Path, views: str) -> None:
    examples = {name: _NUMBERS.get(name, "text") for name in VIEWS_PLACEHOLDERS}
    found = _check_template("run.views", path, views, [views], examples)
    if not views.startswith("{out}/") or ".." in views.split("/"):
        raise TurntableError(
            f"{path}: run.views must begin with {{out}}/ and never go up by '..', not {views!r}; "
            f"known placeholders: {_braced(examples)}."
        )
    if not found & {"name", "stem", "index"}:
        raise TurntableError(
            f"{path}: run.views must tell views apart by {{name}}, {{stem}} or {{index}}; {views!r} holds none of them."
        )
    if views.lower().endswith((".jpg", ".jpeg")):
        raise TurntableError(
            f"{path}: run.views must name PNGs, because a lossy copy is never scored, not {views!r}. "
            "Have the program write PNGs."
        )


def _check_template(
    what: str, path: Path, template: str, words: Sequence[str], examples: Mapping[str, Value]
) -> set[str]:
    """The placeholders in ``words`` of a template, all of which can be filled in as ``examples`` are.

    Raises:
        TurntableError: a brace without its partner, an unknown placeholder, or a format that it doesn't take.
    """
    found: set[str] = set()
    for word in words:
        try:
            parts = list(Formatter().parse(word))
        except ValueError as error:
            raise TurntableError(
                f"{path}: {what} must have a partner for each brace within a word ({error}), not {template!r}; "
                f"known placeholders: {_braced(examples)}."
            ) from None
        for _, name, spec, conversion in parts:
            if name is None:
                continue
            if name not in examples:
                known = [f"{{{key}}}" for key in examples]
                raise unknown_name(f"placeholder of {what} in {path}:", f"{{{name}}}", known)
            try:
                if conversion:
                    raise ValueError(f"!{conversion} isn't known here")
                _formatted(examples[name], spec or "")
            except ValueError as error:
                raise TurntableError(
                    f"{path}: {what} must give {{{name}}} a format that it takes ({error}), not {template!r}; "
                    f"known placeholders: {_braced(examples)}."
                ) from None
            found.add(name)
    return found


def _template(path: Path, run: dict[str, Any], key: str) -> str:
    value = run.get(key)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise TurntableError(f"{path}: run.{key} must be a text without NUL, not {value!r}.")
    return value


def _split(template: str) -> list[str]:
    return shlex.split(template.replace("\\\n", ""))  # a shell's continued lines, which shlex doesn't know


def _formatted(value: Any, spec: str) -> str:
    return format(value if isinstance(value, int | float) else str(value), spec)


def _braced(names: Mapping[str, Value]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _devices(path: Path, table: dict[str, Any]) -> tuple[str, ...]:
    devices = table.get("devices", list(DEVICES))
    if not isinstance(devices, list) or not devices:
        raise TurntableError(
            f"{path}: devices must be a list with at least one of {', '.join(DEVICES)}, not {devices!r}."
        )
    for device in devices:
        if device not in DEVICES:
            raise unknown_name(f"device in {path}:", str(device), DEVICES)
    return tuple(devices)


def _parse_as(kind: type, text: str) -> Value:
    if kind is bool:
        words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False}
        words["0"] = False
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]
    return kind(text)


def _setting(path: Path, name: str, entry: Any) -> Setting:
    if not isinstance(entry, dict) or "default" not in entry or not isinstance(entry.get("help"), str):
        raise TurntableError(f"{path}: settings.{name} needs a default and a help text, not {entry!r}.")
    unknown = set(entry) - {"default", "help", "min", "max", "choices"}
    if unknown:
        raise TurntableError(
            f"{path}: settings.{name} takes default, help, min, max and choices, not {', '.join(sorted(unknown))}."
        )
    default = entry["default"]
    if not isinstance(default, bool | int | float | str):
        raise TurntableError(
            f"{path}: settings.{name}.default must be a number, text or true/false, not {default!r}."
        )
    setting = Setting(
        name, default, entry["help"], entry.get("min"), entry.get("max"), tuple(entry.get("choices", ()))
    )
    setting.check(default)
    return setting


def _text(path: Path, table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise TurntableError(f"{path}: {key} must be a text, not {value!r}.")
    return value


def _table(path: Path, table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key)
    if not isinstance(value, dict):
        raise TurntableError(f"{path}: [{key}] must be a table, not {value!r}.")
    return value
