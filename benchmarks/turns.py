"""What turns cost: pausing, switching, the queue, ``status``; as Markdown tables on stdout. Asserts nothing.

    python benchmarks/turns.py [PART …] [--folder DIR] [--capture ../shared/data/fox] [--swap] [--repeats 3] [--quick]

All parts if none is named. Everything happens in temporary folders (inside ``--folder``: put it on the disk that is to be
measured; 8 GB must be free), with device locks of its own, so nothing waits for other turntables. Keep the machine quiet
meanwhile. ``--quick`` tries everything out; its numbers mean nothing.

``pause``, some 6 minutes
    A Python method whose state is one array of 1, 10, 100 or 1000 MB of noise, with steps of 5 ms, saved by ``np.save``.
    The method writes down when its steps begin and end (``_turns_method.py``); the rest is read from the run's events and
    the record's turns. A supervisor in a process of its own works on the run. *Saved and exited:* from the call of
    ``control.pause`` until the run is paused and we could take its device's lock; from the call of ``control.resume``
    until the first step. The first pause isn't counted: it has no older checkpoint beside it, which a pause checks and
    later removes. *Saved and parked:* two such runs in turn; from the end of one's quantum (its turn's beginning and 2 s)
    until the other's first step, where both are in memory already. A pause writes the state, has the disk confirm it,
    reads it again for its sha256; so beside the latencies stand the bandwidths of disk and hash, measured with as many
    bytes in the same folder.

``program``, some 2 minutes
    A NumPy program (``_turns_loop.py``) that holds 100, 500 or 2000 MB, started, frozen and thawed as a run of a program
    is. Its memory can be given up where there's swap, and we're root; ``--swap`` makes a swap file of 3 GB in /var/tmp
    and removes it afterwards. It has all of its memory back when, after the thaw, it has worked on every megabyte of it
    once; its speed before is a pass over the same memory without a pause.

``switch``, some 8 minutes, 4 of them without the capture
    Four runs with budgets of 12 device seconds each take turns of 2 s, some 6 each: of the same method with 10 MB, and of
    ``splat`` on the capture's photos, shrunk to 256 pixels. Once they may stay in memory between turns; once they may
    not, and each exits when it has saved. What switching costs is found in two ways. By difference: wall time less device
    seconds, which is all that isn't training (starting, rendering, scoring, saving), of the round robin, less the same of
    the same runs worked through first come, first served, where nothing is switched; that was measured before and after,
    and how far these two differ says what the difference is worth. By gaps: from the end of the last step before a switch
    to the beginning of the first step after it, by the method's own clock; but not where the next run has its first turn,
    since it has to be started anyhow. A gap has everything that a switch costs: noticing, saving, the record, the next
    one's start. At a quantum of 60 s there is one switch in at least 60 s; so its loss is at most that of one switch by
    60 s.

``queue``, some 1 minute
    Operations per second on one record of 100 waiting runs (looking and deciding: 10, 100, 1000), by one process, and by
    four at once. Beside it, how often a second the disk confirms a write.

``status``, some 1 minute
    A record with 100,000 finished runs and 20 that wait; ``turntable status`` and ``turntable status --json`` against
    ``python -c pass``, in turn, 20 times. The goal is 100 ms beyond Python's start.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from _turns_bench import Plan
from _turns_pause import pause
from _turns_program import program
from _turns_queue import queue, status
from _turns_switch import switch

PARTS = {"pause": pause, "program": program, "switch": switch, "queue": queue, "status": status}


def main() -> None:
    """Print what was asked for."""
    from turntable.machine import (
        describe,
    )  # not above: supervisors in processes of their own import this module

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # Not by argparse's choices: with nargs="*" these would have to hold the empty list.
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--folder", type=Path, help="where to work; the system's folder of temporary files if left out"
    )
    parser.add_argument(
        "--capture", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data" / "fox"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--swap", action="store_true", help="make a swap file meanwhile (root only)")
    parser.add_argument("--quick", action="store_true", help="try it out: the numbers mean nothing")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    print("# Turns, measured\n")
    print("; ".join(f"{key} {value}" for key, value in describe().items()))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        os.environ["TURNTABLE_LOCKS"] = str(Path(folder) / "locks")
        # As of an installed Turntable: what starts finds its modules compiled, but for the first to do so.
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        repeats = 1 if given.quick else given.repeats
        plan = Plan(Path(folder), repeats, given.quick, given.capture, given.swap)
        for name in given.parts or PARTS:
            load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
            print(
                f"\n{name}: {time.strftime('%Y-%m-%d %H:%M')}, load {load}"
                + (", quick" if given.quick else "")
            )
            PARTS[name](plan)


if __name__ == "__main__":
    main()
