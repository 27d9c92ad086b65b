"""``turntable compare``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as o


@o.verb
def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Photos, a video, COLMAP, transforms.json, LLFF or Middlebury; or the name of a capture of the bench.",
        ),
    ],
    methods: o.MethodsOption = None,
    budget: o.BudgetOption = "2m",
    seeds: o.SeedsOption = 1,
    long_side: o.LongSideOption = None,
    every: o.EveryOption = None,
    hold_out: o.HoldOutOption = None,
    images: o.ImagesOption = None,
    background: o.BackgroundOption = "white",
    name: o.NameOption = None,
    format: o.FormatOption = None,
    accept_poses: o.AcceptPosesOption = False,
    matching: o.MatchingOption = "auto",
    mapper: o.MapperOption = "incremental",
    frames: o.FramesOption = 60,
    pose_seed: o.PoseSeedOption = 0,
    device: o.DeviceOption = "cpu",
    settings: o.SetOption = None,
    detach: o.DetachOption = False,
    policy: o.PolicyOption = "round-robin",
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
    """Photos in, every held-out view out: makes the capture, runs the methods, scores and writes the page.

    Interrupted or killed, the same command goes on from the last checkpoint; done, it answers from what it has. With
    --detach, the captures are made here, and the rest in the background.
    """
    from ..bench import Bench
    from ..jobs import add, check, check_sources
    from ..jobs import compare as do
    from ..results import capture_document
    from ._ending import end_comparisons
    from ._going_on import plan_and_leave
    from ._progress import watching

    terms = o.terms(policy, quantum, priority, after, memory)
    request = o.run_request(
        methods, budget, seeds, device, settings, patience, lpips_weights, fresh, terms, no_sandbox
    )
    options = o.capture_options(
        name,
        format,
        long_side,
        background,
        every,
        hold_out,
        accept_poses,
        matching,
        mapper,
        frames,
        pose_seed,
        images,
    )
    page = o.page_options(lang, no_3d, no_sandbox)
    place = Bench.find(bench)
    check_sources(place, [Path(source) for source in sources], options)
    if detach:
        check(place, request)
        with watching() as watcher:
            captures = [add(place, Path(source), options, watcher) for source in sources]
        plan_and_leave(place, captures, request, as_json)
        return
    with watching() as watcher:
        done = [do(place, Path(source), options, request, watcher, page) for source in sources]
    documents = [capture_document(place, comparison.capture) for comparison in done]
    end_comparisons(done, documents, as_json)
