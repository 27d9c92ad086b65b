"""Tables on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in ``right`` are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width to keep to
    console.print(table)


def score_rows(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows that show a capture's scores: the mean and the worst of each metric."""
    names = list(dict.fromkeys(name for run in document["runs"] for name in run["scores"]))
    columns = ["run", "state", *(f"{name} {what}" for name in names for what in ("mean", "worst"))]
    columns += ["device s", "steps", "memory MB"]
    rows = []
    for run in document["runs"]:
        cells = [run["id"], run["state"] + (f": {run['cause']}" if run["cause"] else "")]
        for name in names:
            summary = run["scores"].get(name)
            digits = 2 if name == "psnr" else 4
            cells += [f"{summary[key]:.{digits}f}" if summary else "–" for key in ("mean", "worst")]
        cells += [f"{run['device_seconds']:.1f}", str(run["steps"]), f"{run['peak_memory_bytes'] / 1e6:.0f}"]
        rows.append(cells)
    return columns, rows


def print_scores(document: dict[str, Any]) -> None:
    """Print a capture's scores."""
    columns, rows = score_rows(document)
    print_table(columns, rows, right=columns[2:])
