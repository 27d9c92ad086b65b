"""What a user does on a machine with the fake libraries: ``work.py BENCH plan|work|look JSON``.

plan {"methods": […], "steps": …, "terms": {…}, …}: queues runs, and prints their ids.
work [id, …]: works on them to their end.
look null: prints how the queue stands, and what NVML says of card 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from turntable import control
from turntable.bench import Bench
from turntable.jobs import Handling, RunRequest, plan, work
from turntable.record import Terms
from turntable.run import Budget
from turntable.turns import cuda, rota
from turntable.turns.watcher import Watcher

# Without walls: inside there would be neither the fake libraries nor their folder.
rota.WEIGH_EVERY_S = 0.2  # the runs of the tests are over before the second look
cuda.PATIENCE_S = 2.0

bench = Bench(Path(sys.argv[1]))
given = json.loads(sys.argv[3])
if sys.argv[2] == "plan":
    request = RunRequest(
        tuple(given.pop("methods")),
        Budget(steps=given.pop("steps")),
        settings=tuple(given.pop("settings")),
        terms=Terms(**given.pop("terms")),
        device="cuda",
        **given,
    )
    sys.stdout.write(
        json.dumps([folder.id for folder in plan(bench, bench.capture("small"), request)]) + "\n"
    )
elif sys.argv[2] == "work":
    work(bench, [bench.run_folder(run) for run in given], Handling(walls=False), Watcher())
else:
    sys.stdout.write(
        json.dumps({**control.view_queue(bench).document(), "on_card": cuda.gpu_processes(0)}) + "\n"
    )
