"""Calls ``turntable.turns.cuda`` in a process that has the fake libraries: one JSON request a line, one answer a line.

A request is ``{"call": name, "with": [arguments]}``; an answer ``{"value": …}`` or ``{"error": type, "message": …}``, and
how often another thread got to run meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from types import SimpleNamespace

import psutil

from turntable.errors import TurntableError
from turntable.turns import cuda

# The packages are imported when they are needed, so that there is still time to take them away.
for name in os.environ.get("DRIVE_WITHOUT", "").split():
    sys.modules[name] = None  # type: ignore[assignment]
cuda.PATIENCE_S = 0.4
cuda.LOCK_GRACE_S = 0.4
if "DRIVE_AVAILABLE" in os.environ:
    psutil.virtual_memory = lambda: SimpleNamespace(available=int(os.environ["DRIVE_AVAILABLE"]))

ticks = 0


def tick() -> None:
    global ticks
    while True:
        ticks += 1
        time.sleep(0.01)


def sizes() -> dict[str, int]:
    from cuda.bindings import driver

    kinds = ("Lock", "Checkpoint", "Restore", "Unlock")
    return {kind: driver.sizeof(getattr(driver, f"CUcheckpoint{kind}Args")) for kind in kinds}


threading.Thread(target=tick, daemon=True).start()
pause = cuda.CudaPause()
for line in sys.stdin:
    request = json.loads(line)
    before = ticks
    try:
        call = {"sizes": sizes}.get(request["call"]) or getattr(cuda, request["call"], None)
        value = (call or getattr(pause, request["call"]))(*request["with"])
        if request["call"] == "cards":
            value = [dataclasses.asdict(card) for card in value]
        answer = {"value": value}
    except (cuda.CannotCheckpoint, cuda.CannotRestore, TurntableError, KeyboardInterrupt) as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps({**answer, "ticks": ticks - before}) + "\n")
    sys.stdout.flush()
