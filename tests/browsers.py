"""Debian's Chromium, as every test that needs a browser drives it; such tests skip, saying so, where it is not."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "no chromium on this machine (CI installs it)"

_FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
_DRAWS_3D = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@contextlib.contextmanager
def chromium(draws_3d: bool = False) -> Iterator[Any]:
    """A browser, headless. While it is open, its thread can't run another event loop.

    Args:
        draws_3d: with WebGL, in software.
    """
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (CI installs it)"
    )
    with sync_api.sync_playwright() as playwright:
        flags = [*_FLAGS, *(_DRAWS_3D if draws_3d else [])]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()
