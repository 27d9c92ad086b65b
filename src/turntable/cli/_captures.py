"""How a capture is printed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer

from ..captures.capture import Capture
from ._options import print_json


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
    if as_json:
        names = {"held_out_views": [view.name for view in capture.held_out]}
        print_json({**capture.document, **summary, **names, "left_out_entries": list(capture.left_out)})
        return
    sizes = Counter(f"{view.camera.width}×{view.camera.height}" for view in capture.views)
    typer.echo(f"{capture.name}  ({summary['format']}, {capture.hash[:12]})")
    typer.echo(
        f"  photos     {summary['photos']}: {summary['training']} training, {summary['held_out']} held out"
    )
    typer.echo(f"  size       {', '.join(f'{size} ({count})' for size, count in sizes.items())}")
    typer.echo(f"  held out   {', '.join(view.name for view in capture.held_out)}")
    typer.echo(f"  points     {summary['points']}")
    for entry in capture.left_out:
        typer.echo(f"  left out   {entry['name']}: {entry['why']}")
    for note in capture.document["notes"]:
        typer.echo(f"  note       {note}")
    for key, value in capture.document["poses"].items():
        typer.echo(f"  poses      {key}: {value}")
    typer.echo(f"  folder     {capture.folder}")
