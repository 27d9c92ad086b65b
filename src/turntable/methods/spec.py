"""``method.toml``: what a method is, read and checked without running anything of it."""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TurntableError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, before it came with Python
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

TASKS = ("views", "surface", "personalise", "edit")
"""Every task of the design; which of them this version can ask is ``turntable.tasks``' business."""

DEVICES = ("cpu", "cuda")
"""Kinds of devices; a method that names none in ``devices`` is taken to run on each."""

ENVIRONMENTS = ("host", "uv", "container")
"""Where a method may live; ``host`` is the interpreter that Turntable itself runs on."""

Value = bool | int | float | str


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
        published: facts from papers, with the protocol that they used.
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
    origin: str = "bench"
    devices: tuple[str, ...] = DEVICES

    @classmethod
    def load(cls, folder: Path, origin: str = "bench") -> Method:
        """Read ``folder/method.toml``.

        Raises:
            TurntableError: it is missing, is no TOML, or breaks a rule; the message says which.
        """
        path = folder / "method.toml"
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TurntableError(
                f"A method is a folder with a method.toml; there is none in {folder}."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TurntableError(f"{path} is not valid TOML: {error}.") from None
        name = _text(path, table, "name")
        if name != folder.name:
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
        return cls(
            folder=folder,
            name=name,
            task=task,
            title=_text(path, table, "title"),
            license=str(table.get("license", "")),
            paper=table.get("paper"),
            environment=environment,
            run=run,
            settings={key: _setting(path, key, entry) for key, entry in settings.items()},
            published=tuple(table.get("published", ())),
            origin=origin,
            devices=_devices(path, table),
        )

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
