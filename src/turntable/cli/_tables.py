"""Tables on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from ..methods.facts import Fact


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in ``right`` are right-aligned."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width to keep to
    console.print(make_table(columns, rows, right))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """A table as text, made without Rich: that takes longer to import than a table of a few runs takes to look up."""
    table = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(columns))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "─" * max(map(len, lines)))
    return "\n".join(lines)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A table for Rich to print."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


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


def print_facts(facts: Sequence[Fact]) -> None:
    """Print published numbers, with their protocols and sources below."""
    import typer

    from ..tasks.published_tables import tables

    for table in tables(facts):
        print_table(table.columns, table.rows, right=table.right)
        for note in table.notes:
            typer.echo(f"  {note}")
        typer.echo("")


def print_means(document: dict[str, Any]) -> None:
    """Print a capture's means over seeds: of each metric, from the lowest to the highest run's mean."""
    names = list(dict.fromkeys(name for one in document["means"] for name in one["scores"]))
    columns = [
        "method",
        "budget",
        "runs",
        *(f"{name} {what}" for name in names for what in ("mean", "range")),
    ]
    rows = []
    for one in document["means"]:
        asked = len(one["runs"]) + len(one["missing"])
        cells = [one["method"], one["budget"], f"{len(one['runs'])} of {asked}"]
        for name in names:
            found = one["scores"].get(name)
            digits = 2 if name == "psnr" else 4
            cells.append(f"{found['mean']:.{digits}f}" if found else "–")
            cells.append(f"{found['min']:.{digits}f}–{found['max']:.{digits}f}" if found else "–")
        rows.append(cells)
    print_table(columns, rows, right=columns[2:])
