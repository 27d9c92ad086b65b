"""``turntable demo``: a small capture made on the spot, compared."""

from __future__ import annotations

from . import _options as o


@o.verb
def demo(
    methods: o.MethodsOption = None,
    budget: o.BudgetOption = "40s",
    seeds: o.SeedsOption = 1,
    device: o.DeviceOption = "cpu",
    settings: o.SetOption = None,
    patience: o.PatienceOption = 600.0,
    lpips_weights: o.LpipsOption = None,
    fresh: o.FreshOption = False,
    lang: o.LangOption = None,
    no_3d: o.NoAroundOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Render a small scene on a turntable, compare the built-in methods on it, and print the page's path.

    Needs no photos, no network and no GPU.
    """
    from ..bench import Bench
    from ..jobs import compare_capture, demo_capture
    from ..results import capture_document
    from ._ending import end_comparisons
    from ._progress import watching

    request = o.run_request(
        methods, budget, seeds, device, settings, patience, lpips_weights, fresh, o.terms("round-robin", 60.0)
    )
    page = o.page_options(lang, no_3d)
    place = Bench.find(bench)
    with watching() as watcher:
        done = compare_capture(place, demo_capture(place, watcher), request, watcher, page)
    end_comparisons([done], [capture_document(place, done.capture)], as_json)
