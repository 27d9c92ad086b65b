"""What a bench is set to: ``bench.toml``, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments.engine import ENGINES
from .errors import TurntableError, unknown_name
from .files import read_toml
from .lang import FIRST, languages

BENCH_TOML = """\
# This folder is a Turntable bench. Settings of the bench go here.
format = 1

# [environments]
# replace = ["torch==2.13.0"]   # taken instead of what the locks of methods name: another build, for this machine
# without = ["nvidia-*"]        # packages of the locks that environments here go without

# [containers]
# engine = "docker"             # what runs methods of kind 'container': podman or docker; the first that is found

# [page]
# lang = "ko"                   # the language of its pages: en or ko

# [sandbox]
# read = ["/data/weights"]      # what methods may read beside what is theirs
"""

_KNOWN = {
    "environments": ("replace", "without"),
    "containers": ("engine",),
    "page": ("lang",),
    "sandbox": ("read",),
}


@dataclass(frozen=True)
class Settings:
    """The settings of a bench.

    Args:
        replace: requirements that stand in for what locks name, for machines that need another build of a package.
        without: names, with ``*`` for any characters, of packages that environments here go without.
        read: what methods may read beside what is theirs.
        engine: what runs containers: ``podman`` or ``docker``; the first that is found if None.
        lang: the language of its pages.
    """

    replace: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    read: tuple[Path, ...] = ()
    engine: str | None = None
    lang: str = FIRST


def read_settings(path: Path) -> Settings:
    """Read a ``bench.toml``; where there is none, nothing is set.

    Raises:
        TurntableError: it isn't TOML, or says something that isn't known.
    """
    if not path.is_file():
        return Settings()
    table = read_toml(path)
    for key in table:
        if key not in ("format", *_KNOWN):
            raise unknown_name(f"key in {path}:", key, ("format", *_KNOWN))
    read = []
    for text in _texts(path, table, "sandbox", "read"):
        place = Path(text).expanduser()
        if not place.is_absolute():
            raise TurntableError(f"{path}: sandbox.read names whole paths, from / or ~, not {text!r}.")
        read.append(place)
    return Settings(
        replace=tuple(_texts(path, table, "environments", "replace")),
        without=tuple(_texts(path, table, "environments", "without")),
        read=tuple(place for place in read if place.exists()),
        engine=_engine(path, table),
        lang=_lang(path, table),
    )


def _engine(path: Path, table: dict[str, Any]) -> str | None:
    engine = _section(path, table, "containers").get("engine")
    if engine not in (None, *ENGINES):
        raise unknown_name(f"containers.engine in {path}:", str(engine), ENGINES)
    return engine


def _lang(path: Path, table: dict[str, Any]) -> str:
    lang = _section(path, table, "page").get("lang", FIRST)
    if lang not in languages():
        raise unknown_name(f"page.lang in {path}:", str(lang), languages())
    return lang


def _section(path: Path, table: dict[str, Any], section: str) -> dict[str, Any]:
    part = table.get(section, {})
    if not isinstance(part, dict):
        raise TurntableError(f"{path}: {section} must be a table, not {type(part).__name__}.")
    for name in part:
        if name not in _KNOWN[section]:
            raise unknown_name(f"key of [{section}] in {path}:", str(name), _KNOWN[section])
    return part


def _texts(path: Path, table: dict[str, Any], section: str, key: str) -> list[str]:
    value = _section(path, table, section).get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TurntableError(f"{path}: {section}.{key} must be a list of texts, not {value!r}.")
    return value
