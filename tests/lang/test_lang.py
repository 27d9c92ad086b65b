"""Catalogues hold the same texts with the same placeholders, and what is put into markup is escaped."""

from __future__ import annotations

from string import Formatter

import pytest

from turntable.errors import TurntableError
from turntable.lang import FIRST, Texts, languages, texts


def _placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def _all(lang: str) -> dict[str, str]:
    return dict(texts(lang)._texts)


@pytest.mark.parametrize("lang", [lang for lang in languages() if lang != FIRST])
def test_every_catalogue_has_the_same_texts_and_placeholders(lang: str) -> None:
    first, other = _all(FIRST), _all(lang)
    plurals = {path for path in first if path.endswith(".one")}
    assert set(first) - plurals <= set(other) <= set(first)
    for path, text in other.items():
        assert text.strip(), path
        assert _placeholders(text) == _placeholders(first[path]), path


def test_korean_is_there() -> None:
    assert languages()[0] == FIRST and "ko" in languages()


def test_an_unknown_language_names_those_that_there_are() -> None:
    with pytest.raises(TurntableError, match="ko"):
        texts("xx")


def test_plurals_are_chosen_by_count_and_markup_escapes_what_is_put_in() -> None:
    said = Texts(
        "en", {"a.one": "{count} view", "a.other": "{count} views", "b_html": "<b>{name}</b>", "c": "{name}"}
    )
    assert [said("a", count=count) for count in (0, 1, 2)] == ["0 views", "1 view", "2 views"]
    assert said("b_html", name="<script>") == "<b>&lt;script&gt;</b>"
    assert said("c", name="{name}") == "{name}"
    assert "a" in said and "d" not in said
    with pytest.raises(KeyError):
        said("d")
