"""How a capture is printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import typer

from ..captures.capture import Capture
from ..captures.dataset import dataset_of
from ..captures.leakage import Leak, leakage_of, told
from ..captures.split import split_of
from ._options import print_json, say


def capture_summary(capture: Capture) -> dict[str, Any]:
    """A capture in a few numbers."""
    points = capture.document.get("points") or {}
    return {
        "name": capture.name,
        "hash": capture.hash,
        "format": capture.document["source"]["format"],
        "photos": len(capture.views),
        "training": len(capture.training),
        "held_out": len(capture.held_out),
        "left_out": len(capture.left_out),
        "points": points.get("count", 0),
    }


def print_capture(capture: Capture, as_json: bool) -> None:
    """Print all that is known of a capture but the pixels."""
    summary = capture_summary(capture)
    leaks = leakage_of(capture)
    if as_json:
        more = {
            "held_out_views": [view.name for view in capture.held_out],
            "left_out_entries": list(capture.left_out),
            "split": split_of(capture.document),
            "leaks": [asdict(leak) for leak in leaks],
        }
        print_json({**capture.document, **summary, **more})
        return
    sizes = Counter(f"{view.camera.width}×{view.camera.height}" for view in capture.views)
    typer.echo(f"{capture.name}  ({summary['format']}, {capture.hash[:12]})")
    if (said := dataset_of(capture)) is not None:
        typer.echo(f"  data set   {said}{'' if said.sha256 else ' (as somebody said; not fetched)'}")
    typer.echo(
        f"  photos     {summary['photos']}: {summary['training']} training, {summary['held_out']} held out"
    )
    typer.echo(f"  size       {', '.join(f'{size} ({count})' for size, count in sizes.items())}")
    typer.echo(f"  training   {', '.join(view.name for view in capture.training)}")
    typer.echo(f"  held out   {', '.join(view.name for view in capture.held_out)}")
    typer.echo(f"  split      {split_of(capture.document)['words']}")
    for leak in leaks:
        typer.echo(f"  leakage    {_leak_line(leak)}")
    typer.echo(f"  points     {summary['points']}")
    for entry in capture.left_out:
        typer.echo(f"  left out   {entry['name']}: {entry['why']}")
    for note in capture.document["notes"]:
        typer.echo(f"  note       {note}")
    for key, value in capture.document["poses"].items():
        typer.echo(f"  poses      {key}: {value}")
    typer.echo(f"  folder     {capture.folder}")


def say_leakage(capture: Capture) -> None:
    """One line on standard error where training photos show held-out views."""
    if text := told(leakage_of(capture)):
        say(f"{capture.name}: {text}")


def _leak_line(leak: Leak) -> str:
    apart = "" if leak.psnr is None else f", {leak.psnr:.1f} dB"
    return f"{leak.held_out} is shown by {leak.training}, which is trained on ({leak.kind}{apart})"
