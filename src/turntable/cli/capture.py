"""``turntable capture``: add, list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as o

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
@o.verb
def add(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="Photos, a video, COLMAP, transforms.json, LLFF or Middlebury."
        ),
    ],
    name: o.NameOption = None,
    format: o.FormatOption = None,
    long_side: o.LongSideOption = None,
    every: o.EveryOption = None,
    hold_out: o.HoldOutOption = None,
    images: o.ImagesOption = None,
    background: o.BackgroundOption = "white",
    accept_poses: o.AcceptPosesOption = False,
    matching: o.MatchingOption = "auto",
    mapper: o.MapperOption = "incremental",
    frames: o.FramesOption = 60,
    pose_seed: o.PoseSeedOption = 0,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Make a capture. Adding the same source with the same options again finds the one that is there."""
    from ..bench import Bench
    from ..jobs import add as do
    from ._captures import print_capture, say_leakage
    from ._progress import watching

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
    with watching() as watcher:
        made = do(Bench.find(bench), source, options, watcher)
    print_capture(made, as_json)
    say_leakage(made)


@app.command("list")
@o.verb
def list_captures(
    bench: o.BenchOption = None, as_json: o.JsonOption = False, debug: o.DebugOption = False
) -> None:
    """List the captures of the bench."""
    from ..bench import Bench
    from ._captures import capture_summary
    from ._tables import print_table

    captures = [capture_summary(capture) for capture in Bench.find(bench).captures().values()]
    if as_json:
        o.print_json({"captures": captures})
        return
    columns = ["name", "format", "photos", "training", "held out", "left out", "points", "hash"]
    rows = [[str(capture[column.replace(" ", "_")]) for column in columns[:-1]] for capture in captures]
    for row, capture in zip(rows, captures, strict=True):
        row.append(capture["hash"][:12])
    print_table(columns, rows, right=columns[2:-1])


@app.command()
@o.verb
def show(
    name: Annotated[str, typer.Argument(metavar="CAPTURE", help="The capture's name.")],
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Show what a capture is: where its photos came from, what is held out, what was left out and why."""
    from ..bench import Bench
    from ._captures import print_capture

    print_capture(Bench.find(bench).capture(name), as_json)
