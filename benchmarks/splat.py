"""How fast and how good the method ``splat`` is, as Markdown tables on stdout. Asserts nothing.

    python benchmarks/splat.py [PART] [--data ../shared/data] [--seeds 3] [--bench DIR] [--quick]

Parts, each of which runs alone: ``stages`` (ms of each stage of a step, and the floor below it), ``raster`` (the
rasteriser alone, at the prototype's load), ``curve`` (quality against time), ``growth`` (time and memory against pixels,
Gaussians, photos), ``ablation`` (what each trick is worth), ``view`` (frames per second); ``all`` is all of them, some
35 minutes on two cores. ``--quick`` tries everything out in about a minute; its numbers mean nothing. Keep the machine
quiet meanwhile. Captures whose photos aren't in ``--data`` are left out, and said so.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _splat_growth import growth
from _splat_kernels import raster, stages, view
from _splat_runs import Job, Look, Outcome, Plan, capture, outcome, section, splat_method, spread, table

from turntable.captures.capture import Capture
from turntable.methods.splat.splat import default_cap

CURVES = (
    ("fox", (2.5, 8.0, 30.0, 60.0, 120.0)),
    ("temple", (2.5, 10.0, 30.0, 60.0)),
    ("demo", (2.5, 10.0, 30.0, 60.0)),
)
"""Captures and budgets of runs of their own, device seconds."""
LOOKS = (2.5, 8.0, 15.0, 30.0, 60.0)
"""When fox's longest run is looked at on its way."""
ALL_SEEDS_UNTIL = 120.0
"""Device seconds of a budget up to which every seed is run; of longer ones every third."""
RUN_COLUMNS = ("PSNR", "worst view", "steps", "Gaussians", "setup s", "memory MB")
"""What ``_curve_row`` ends with."""
SINGLE_THREAD = (8.0, 30.0)
"""Budgets on fox that are also run on one thread."""

ABLATIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("no coarse to fine", {"coarse_to_fine": "false"}),
    ("L1 alone", {"ssim_weight": "0"}),
    ("one colour from everywhere", {"degree": "0"}),
    ("harmonics of degree 1", {"degree": "1"}),
    ("no densification", {"densification": "none"}),
    ("as MCMC densifies", {"densification": "mcmc"}),
    ("start from photos", {"start": "photos"}),
    ("start from points", {"start": "points"}),
    ("opacities left alone", {"opacity_regularisation": "0"}),
    ("scales left alone", {"scale_regularisation": "0"}),
    ("antialias", {"antialias": "true"}),
    ("step sizes of 3DGS's order", {"learning_rate": "0.25"}),
    ("half as many Gaussians", {"max_gaussians": "× 0.5"}),
    ("twice as many Gaussians", {"max_gaussians": "× 2"}),
    ("one thread", {"threads": "1"}),
    ("baseline kernels", {"instruction_set": "baseline"}),
)
"""What is switched off or changed; ``× f`` is f times what max_gaussians is by itself. A setting that splat hasn't is
passed over and said so; of a true-or-false setting that isn't here, the other value is tried without being asked for."""


def curve(plan: Plan) -> None:
    """PSNR against device seconds."""
    section(
        "Quality against time",
        "PSNR in dB of the held-out views; only the time inside `step()` counts. Mean over seeds (least – most). Runs "
        "of their own follow their own budget's schedule; `of 120` is one run looked at on its way.",
    )
    header = (
        "capture",
        "threads",
        "device s",
        "seeds",
        *RUN_COLUMNS,
    )
    table(header, _curve_rows(plan))


def _curve_rows(plan: Plan) -> Iterator[tuple[Any, ...]]:
    for name, budgets in CURVES:
        of = capture(plan, name)
        if of is None:
            continue
        chosen = (0.5, 1.0) if plan.quick else budgets
        anytime = name == "fox"
        for budget in chosen[:-1] if anytime else chosen:
            runs = _runs(of, plan, budget)
            yield _curve_row(name, "all", f"{budget:g}", runs, [run.last for run in runs])
        if anytime:
            looks = (0.3,) if plan.quick else LOOKS
            runs = _runs(of, plan, chosen[-1], looks=looks)
            for index, look in enumerate(looks):
                shown = f"{look:g} of {chosen[-1]:g}"
                yield _curve_row(name, "all", shown, runs, [run.looks[index] for run in runs])
            yield _curve_row(name, "all", f"{chosen[-1]:g}", runs, [run.last for run in runs])
            for budget in chosen[:1] if plan.quick else SINGLE_THREAD:
                runs = _runs(of, plan, budget, {"threads": "1"})
                yield _curve_row(name, "1", f"{budget:g}", runs, [run.last for run in runs])


def _runs(
    of: Capture,
    plan: Plan,
    budget: float,
    settings: dict[str, str] | None = None,
    looks: Sequence[float] = (),
) -> list[Outcome]:
    seeds = plan.seeds if budget <= ALL_SEEDS_UNTIL else max(1, plan.seeds // 3)
    job = Job(of.folder, budget, 0, settings or {}, tuple(looks))
    return [outcome(dataclasses.replace(job, seed=seed)) for seed in range(seeds)]


def _curve_row(
    name: str, threads: str, budget: str, runs: list[Outcome], looks: list[Look]
) -> tuple[Any, ...]:
    return (
        name,
        threads,
        budget,
        len(runs),
        f"**{spread([look.psnr for look in looks])}**",
        spread([look.worst for look in looks]),
        spread([look.steps for look in looks], ",.0f"),
        spread([look.gaussians for look in looks], ",.0f"),
        f"{sum(run.setup_seconds for run in runs) / len(runs):.1f}",
        f"{max(run.memory_bytes for run in runs) / 1e6:,.0f}",
    )


def ablation(plan: Plan) -> None:
    """What each setting's default is worth."""
    section(
        "Ablation",
        "fox, long side 384. Gain: PSNR in dB of the changed run less that of the unchanged one with the same seed, mean "
        "over seeds (least – most); what is below zero is what the default is worth.",
    )
    of = capture(plan, "fox")
    if of is None:
        return
    for budget in (0.4,) if plan.quick else plan.budgets:
        print(f"Budget {budget:g} device seconds, {plan.seeds} seeds.\n")
        header = (
            "change",
            "settings",
            "gain",
            *RUN_COLUMNS,
        )
        table(header, _ablation_rows(of, plan, budget))


def _ablation_rows(of: Capture, plan: Plan, budget: float) -> Iterator[tuple[Any, ...]]:
    plain = _runs(of, plan, budget)
    yield _ablation_row("nothing", {}, plain, plain)
    for name, settings in variants(of):
        missing = settings.keys() - splat_method().settings.keys()
        if missing:
            yield (name, f"left out: splat has no setting {', '.join(missing)}", *[""] * 7)
        else:
            yield _ablation_row(name, settings, plain, _runs(of, plan, budget, settings))


def variants(of: Capture) -> list[tuple[str, dict[str, str]]]:
    """ABLATIONS, with numbers of Gaussians in place of factors, and the switches that aren't among them."""
    cap = default_cap(sum(view.camera.width * view.camera.height for view in of.training) / len(of.training))
    made = []
    for name, settings in ABLATIONS:
        factors = {key: value.partition("× ")[2] for key, value in settings.items() if value.startswith("× ")}
        made.append(
            (name, settings | {key: str(int(cap * float(factor))) for key, factor in factors.items()})
        )
    tried = {key for _, settings in ABLATIONS for key in settings}
    for key, setting in splat_method().settings.items():
        if isinstance(setting.default, bool) and key not in tried:
            other = str(not setting.default).lower()
            made.append((f"{key} {other}", {key: other}))
    return made


def _ablation_row(
    name: str, settings: dict[str, str], plain: list[Outcome], changed: list[Outcome]
) -> tuple[Any, ...]:
    gains = [after.last.psnr - before.last.psnr for before, after in zip(plain, changed, strict=True)]
    row = _curve_row(name, "", "", changed, [run.last for run in changed])
    gain = "–" if changed is plain else f"**{spread(gains, '+.2f')}**"
    return (name, ", ".join(f"`{key}={value}`" for key, value in settings.items()), gain, *row[4:])


PARTS = {
    "raster": raster,
    "stages": stages,
    "curve": curve,
    "growth": growth,
    "ablation": ablation,
    "view": view,
}


def main() -> None:
    """Print what was asked for."""
    from turntable.machine import describe  # not above: runs in processes of their own import this module

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bench", type=Path, help="where captures are kept; a temporary folder if left out")
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[8.0], help="of the ablation, device seconds"
    )
    parser.add_argument("--quick", action="store_true", help="try it out: the numbers mean nothing")
    given = parser.parse_args()
    print("# The method splat, measured\n")
    print("; ".join(f"{key} {value}" for key, value in describe().items()))
    print(
        f"\n{time.strftime('%Y-%m-%d %H:%M')}, load {os.getloadavg()[0]:.1f}"
        + (", quick" if given.quick else "")
    )
    with tempfile.TemporaryDirectory() as temporary:
        bench = given.bench or Path(temporary) / "bench"
        seeds = 1 if given.quick else given.seeds
        plan = Plan(given.data, bench, seeds, given.quick, tuple(given.budgets))
        for name, part in PARTS.items():
            if given.part in (name, "all"):
                part(plan)


if __name__ == "__main__":
    main()
