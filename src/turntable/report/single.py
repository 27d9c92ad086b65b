"""A page as one file, for mail: what lies beside its ``index.html`` is put into it."""

from __future__ import annotations

import base64
import mimetypes
import re
from pathlib import Path

_SOURCE = re.compile(r'src="((?:images|films)/[^"/]+)"')
_LINK = re.compile(r'href="images/[^"/]+" data-view="([^"]+)"')
_STYLE = '<link rel="stylesheet" href="assets/page.css">'
_SCRIPT = '<script defer src="assets/page.js"></script>'


def inlined(folder: Path) -> str:
    """The text of the page in ``folder`` with its style, script, pictures and films inside.

    A picture's link would hold the picture once more, and browsers don't follow links to data: it leads to the view.
    """
    text = (folder / "index.html").read_text(encoding="utf-8")
    text = _replaced_once(
        text, _STYLE, f"<style>{(folder / 'assets' / 'page.css').read_text(encoding='utf-8')}</style>"
    )
    script = (folder / "assets" / "page.js").read_text(encoding="utf-8")
    text = _replaced_once(text, _SCRIPT, f'<script type="module">{script}</script>')

    def data(match: re.Match[str]) -> str:
        name = match[1]
        kind = "image/webp" if name.endswith(".webp") else mimetypes.guess_type(name)[0]
        return f'src="data:{kind};base64,{base64.b64encode((folder / name).read_bytes()).decode()}"'

    return _LINK.sub(r'href="#\1" data-view="\1"', _SOURCE.sub(data, text))


def _replaced_once(text: str, old: str, new: str) -> str:
    before, found, after = text.partition(old)
    if not found:
        raise ValueError(f"the page lacks {old}")
    return before + new + after
