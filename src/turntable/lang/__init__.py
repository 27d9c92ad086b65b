"""What pages say, in each language that there is: one catalogue (``<language>.toml``) per language, English the first.

A catalogue has a table per part of a page; a text is called by its path there, as in ``views.title``. Texts hold
``{placeholders}``. A table with ``one`` and ``other`` in place of a text is a plural: ``count`` chooses. A text whose name
ends with ``_html`` holds markup, and what is put into it is escaped; all others are plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import unknown_name
from ..files import read_toml

FIRST = "en"
"""The language that pages are in unless another is asked for."""

_FOLDER = Path(__file__).parent


def languages() -> list[str]:
    """The languages that there are, English first."""
    return sorted((path.stem for path in _FOLDER.glob("*.toml")), key=lambda lang: (lang != FIRST, lang))


class Texts:
    """The texts of one language: called with a text's path, and what its placeholders stand for.

    Args:
        lang: the language, as in HTML's ``lang``.
        texts: text by path; a plural's forms by ``path.one`` and ``path.other``.
    """

    def __init__(self, lang: str, texts: Mapping[str, str]) -> None:
        self.lang = lang
        self._texts = texts

    def __call__(self, path: str, /, **values: Any) -> str:
        """The text called ``path``.

        Raises:
            KeyError: there is no such text, or a placeholder stands for nothing.
        """
        if path not in self._texts and "count" in values:
            path += ".one" if values["count"] == 1 and f"{path}.one" in self._texts else ".other"
        text = self._texts[path]
        return Markup(text).format(**values) if path.endswith("_html") else text.format(**values)

    def __contains__(self, path: str) -> bool:
        return path in self._texts or f"{path}.other" in self._texts

    def part(self, name: str) -> dict[str, str]:
        """All texts of one table by what follows ``name.`` in their paths, unformatted: for a page's script."""
        return {
            path.removeprefix(f"{name}."): text
            for path, text in self._texts.items()
            if path.startswith(f"{name}.")
        }


@lru_cache
def texts(lang: str = FIRST) -> Texts:
    """The texts in the language ``lang``.

    Raises:
        TurntableError: there is no such catalogue.
    """
    if lang not in languages():
        raise unknown_name("language", lang, languages())
    return Texts(lang, dict(_flat(read_toml(_FOLDER / f"{lang}.toml"))))


def _flat(table: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        found += _flat(value, f"{path}{key}.") if isinstance(value, dict) else [(f"{path}{key}", value)]
    return found
