"""``turntable status``: every run and how far it is."""

from __future__ import annotations

from . import _options as o


@o.verb
def status(bench: o.BenchOption = None, as_json: o.JsonOption = False, debug: o.DebugOption = False) -> None:
    """Show every run of the bench: its state, how far it is, and what it has cost."""
    from ..bench import Bench
    from ..jobs import run_states
    from ._tables import print_table

    rows = run_states(Bench.find(bench))
    if as_json:
        o.print_json({"runs": rows})
        return
    columns = ["run", "state", "budget used", "device", "device s", "steps", "memory MB", "cause"]
    cells = [
        [
            row["id"],
            row["state"],
            f"{row['fraction']:.0%}",
            row["device"],
            f"{row['device_seconds']:.1f}",
            str(row["steps"]),
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
            row["cause"] or "",
        ]
        for row in rows
    ]
    print_table(columns, cells, right=("budget used", "device s", "steps", "memory MB"))
