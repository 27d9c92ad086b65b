"""``turntable run``: queue runs on a capture and work through them."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _options as o


@o.verb
def run(
    capture: Annotated[str, typer.Argument(metavar="CAPTURE", help="A capture's name (see capture list).")],
    methods: o.MethodsOption = None,
    budget: o.BudgetOption = "2m",
    seeds: o.SeedsOption = 1,
    device: o.DeviceOption = "cpu",
    settings: o.SetOption = None,
    detach: o.DetachOption = False,
    policy: o.PolicyOption = "first-come",
    quantum: o.QuantumOption = 60.0,
    priority: o.PriorityOption = 0,
    after: o.AfterOption = None,
    memory: o.MemoryOption = None,
    patience: o.PatienceOption = 600.0,
    lpips_weights: o.LpipsOption = None,
    fresh: o.FreshOption = False,
    no_sandbox: o.NoSandboxOption = False,
    lang: o.LangOption = None,
    no_3d: o.NoAroundOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Run methods on a capture of the bench, score every held-out view and write the page.

    The runs wait in the bench's queue for their device, whoever else uses it; with --detach, in the background.
    """
    from ..bench import Bench
    from ..jobs import compare_capture
    from ..results import capture_document
    from ._ending import end_comparisons
    from ._going_on import plan_and_leave
    from ._progress import watching

    terms = o.terms(policy, quantum, priority, after, memory)
    request = o.run_request(
        methods, budget, seeds, device, settings, patience, lpips_weights, fresh, terms, no_sandbox
    )
    page = o.page_options(lang, no_3d, no_sandbox)
    place = Bench.find(bench)
    if detach:
        plan_and_leave(place, [place.capture(capture)], request, as_json)
        return
    with watching() as watcher:
        done = compare_capture(place, place.capture(capture), request, watcher, page)
    end_comparisons([done], [capture_document(place, done.capture, done.runs)], as_json)
