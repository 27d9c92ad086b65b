"""axe-core finds nothing serious on the page, in any colours, on any screen, in any language."""

from __future__ import annotations

import pytest

SCREENS = {"desktop": {"width": 1400, "height": 1000}, "phone": {"width": 390, "height": 844}}

ALIKE = (
    "document.querySelectorAll('.view:nth-child(n+2):not(:has(> h3 .mark))').forEach((view) => view.remove())"
)
"""Leaves the first view and the one with a warning: the others are like them, and axe takes its time for each."""


def serious(page, context=None):
    """What axe-core calls serious or critical: the rule, and the first places that break it."""
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    options = {
        "preload": False,
        "resultTypes": ["violations"],
    }  # preload asks for the style sheet: files may not
    response = module.Axe().run(page, context=context, options=options).response
    assert len(response["passes"]) > 5  # it did look
    return {
        found["id"]: [
            node["html"][:160] + " " + str(node.get("failureSummary"))[:300] for node in found["nodes"][:5]
        ]
        for found in response["violations"]
        if found["impact"] in ("serious", "critical")
    }


@pytest.mark.parametrize(
    ("lang", "colours", "screen"),
    [
        ("english", "light", "desktop"),
        ("english", "dark", "desktop"),
        ("english", "light", "phone"),
        ("english", "dark", "phone"),
        ("korean", "light", "desktop"),
        ("korean", "dark", "phone"),
    ],
)
def test_axe_finds_nothing_serious(visit, request, lang, colours, screen):
    shown = request.getfixturevalue(lang)
    page = visit(shown.index, viewport=SCREENS[screen], color_scheme=colours).page
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    page.locator("#curves").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('.chart .scatterlayer').length === 3")
    page.evaluate(ALIKE)
    assert 1 <= page.locator(".view").count() <= 2 and page.locator(".view .mark").count()
    assert serious(page) == {}
    page.locator(".view .open").first.click()
    for mode in ("two", "all"):
        page.locator("#large [name=mode]").select_option(mode)
        assert serious(page, context="#large") == {}
