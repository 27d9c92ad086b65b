"""What `turntable serve` with many viewers costs a running compare: steps per second with and without, by turns.

    python benchmarks/serve.py [--seconds 60] [--rounds 4] [--viewers 200] [--capture ../shared/data/fox] [--log-gb 1]

One compare trains all along, on a scene that doesn't grow, so that every step costs the same. In each round it trains
alone for a while, then with a server and its viewers, or the other way round. Steps come from the run's events,
interpolated to the ends of each stretch. The viewers are a process of their own and would be other machines: their
processor time is told apart. Afterwards a run logs --log-gb gigabytes in a minute while the server is watched: its memory
is to stay flat.
"""

from __future__ import annotations

import argparse
import http.client
import json
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from turntable.machine import describe

HERE = Path(__file__).resolve().parent
SETTLE_S = 3.0
"""After a server or its viewers have started: what starting costs is no part of the stretch."""

LOGGER_TOML = """
name = "logger"
task = "views"
title = "Writes a log of many lines"
[environment]
kind = "host"
[run]
kind = "python"
entry = "method:Logger"
[settings.bytes_per_second]
default = 17e6
help = "how much it prints"
min = 1.0
"""

LOGGER_CODE = '''
import json, time
import numpy as np

LINE = "x" * 199 + "\\n"


class Logger:
    """Prints so many bytes a second, and trains nothing."""

    def __init__(self, views, settings, seed, device):
        self.rate, self.steps = settings["bytes_per_second"], 0

    def step(self):
        time.sleep(0.05)
        print(LINE * int(self.rate * 0.05 / 200), end="", flush=True)
        self.steps += 1
        return {"loss": 0.0}

    def render(self, camera):
        return {"image": np.zeros((camera.height, camera.width, 3))}

    def save(self, folder):
        (folder / "state.json").write_text(json.dumps(self.steps))

    def load(self, folder):
        self.steps = json.loads((folder / "state.json").read_text())
'''


@dataclass
class Stretch:
    """What was measured while the compare trained with or without a server.

    Args:
        steps_per_s: of the compare, per second of the wall clock.
        server_cores, viewers_cores: processor seconds per second.
        rss: the server's memory at its begin and end, in bytes.
        events: what the viewers got: the fewest and the most, and bytes of all.
    """

    steps_per_s: float
    server_cores: float = 0.0
    viewers_cores: float = 0.0
    rss: tuple[int, int] = (0, 0)
    events: tuple[int, int, int] = (0, 0, 0)


def command(*arguments: str) -> list[str]:
    code = "import sys; sys.argv[0] = 'turntable'; from turntable.__main__ import main; main()"
    return [sys.executable, "-c", code, *arguments]


def said(process: subprocess.Popen[str], seconds: float = 60.0) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise SystemExit(f"{process.args} said nothing for {seconds:.0f} s")
    return process.stdout.readline().strip()


def start_server(bench: Path) -> tuple[subprocess.Popen[str], int]:
    server = subprocess.Popen(
        command("serve", "--bench", str(bench), "--port", "0"), stdout=subprocess.PIPE, text=True
    )
    return server, int(said(server).rsplit(":", 1)[1].strip("/"))


def start_viewers(port: int, count: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(HERE / "_serve_clients.py"), str(port), str(count)]
    viewers = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert said(viewers) == "ready"
    return viewers


def steps_at(events: Path, moments: tuple[float, float]) -> list[float]:
    """The steps of a run at two moments, between the lines of its events."""
    seen: list[tuple[float, float]] = []
    for line in events.read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "progress":
            seen.append((event["time"], event["steps"]))
    found = []
    for moment in moments:
        after = next(index for index, (at, _) in enumerate(seen) if at > moment)
        (t0, s0), (t1, s1) = seen[after - 1], seen[after]
        found.append(s0 + (s1 - s0) * (moment - t0) / (t1 - t0))
    return found


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def train(events: Path, seconds: float) -> float:
    """Steps per second of the compare from now on, for so long."""
    begin = time.time()
    time.sleep(seconds)
    end = time.time()
    time.sleep(2.5)  # the event after the end
    first, last = steps_at(events, (begin, end))
    return (last - first) / (end - begin)


def with_server(bench: Path, events: Path, seconds: float, count: int) -> Stretch:
    server, port = start_server(bench)
    viewers = start_viewers(port, count)
    time.sleep(SETTLE_S)
    watched, watching = psutil.Process(server.pid), psutil.Process(viewers.pid)
    before, rss = (used(watched), used(watching)), watched.memory_info().rss
    begin = time.monotonic()
    steps = train(events, seconds)
    took = time.monotonic() - begin
    cores = [(used(watched) - before[0]) / took, (used(watching) - before[1]) / took]
    end_rss = watched.memory_info().rss
    viewers.terminate()
    got = json.loads(viewers.communicate(timeout=30)[0])
    server.send_signal(signal.SIGINT)
    server.wait(30)
    counts = [number for number, _ in got]
    return Stretch(
        steps, cores[0], cores[1], (rss, end_rss), (min(counts), max(counts), sum(size for _, size in got))
    )


def start_compare(bench: Path, source: list[str], seconds: float) -> tuple[subprocess.Popen[bytes], Path]:
    """A compare whose first mark is far away; waits until it trains."""
    asked = [*source, "-m", "splat", "--budget", f"{10 * seconds:.0f}s", "--bench", str(bench)]
    asked += ["--set", "densification=none", "--set", "coarse_to_fine=false"]
    compare = subprocess.Popen(
        command(*asked), stdout=subprocess.DEVNULL, stderr=(bench.parent / "compare.log").open("wb")
    )
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and compare.poll() is None:
        for events in bench.glob("runs/*/events.jsonl"):
            if events.read_text().count('"progress"') > 5:
                return compare, events
        time.sleep(0.5)
    raise SystemExit((bench.parent / "compare.log").read_text())


def measure(given: argparse.Namespace, folder: Path) -> None:
    bench = folder / "bench"
    source = ["compare", str(given.capture), "--long-side", "256"] if given.capture.is_dir() else ["demo"]
    whole = given.rounds * 2 * (given.seconds + 3 * SETTLE_S) + 30
    compare, events = start_compare(bench, source, whole)
    print(f"{' '.join(source)}: run {events.parent.name}", flush=True)
    alone: list[Stretch] = []
    served: list[Stretch] = []
    try:
        for round_ in range(given.rounds):
            for kind in "AB" if round_ % 2 == 0 else "BA":
                if kind == "A":
                    alone.append(Stretch(train(events, given.seconds)))
                else:
                    served.append(with_server(bench, events, given.seconds, given.viewers))
            a, b = alone[-1], served[-1]
            print(
                f"round {round_ + 1}: {a.steps_per_s:7.2f} steps/s alone, {b.steps_per_s:7.2f} with {given.viewers} viewers "
                f"({b.steps_per_s / a.steps_per_s - 1:+.1%}); server {b.server_cores:.2%} of a core, "
                f"{b.rss[0] / 1e6:.1f} → {b.rss[1] / 1e6:.1f} MB; viewers {b.viewers_cores:.2%} of a core, "
                f"{b.events[0]}–{b.events[1]} events each, {b.events[2] / 1e6:.2f} MB in all",
                flush=True,
            )
    finally:
        subprocess.run(
            command("cancel", events.parent.name, "--bench", str(bench)), stdout=subprocess.DEVNULL
        )
        compare.wait(120)
    changes = [b.steps_per_s / a.steps_per_s - 1 for a, b in zip(alone, served, strict=True)]
    error = statistics.stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else float("nan")
    print(
        f"steps/s with viewers against alone: {statistics.mean(changes):+.2%} ± {error:.2%} (standard error)"
    )


def log_much(given: argparse.Namespace, folder: Path) -> None:
    """A run that logs gigabytes, watched."""
    bench = folder / "logging"
    method = folder / "logger"
    method.mkdir()
    (method / "method.toml").write_text(LOGGER_TOML)
    (method / "method.py").write_text(LOGGER_CODE)
    rate = given.log_gb * 1e9 / 60
    asked = ["demo", "-m", str(method), "--budget", "60s", "--set", f"bytes_per_second={rate:.0f}"]
    run = subprocess.Popen(
        command(*asked, "--bench", str(bench)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (found := list(bench.glob("runs/*/log.txt"))):
        time.sleep(0.5)
        if run.poll() is not None:
            raise SystemExit("the run that logs did not begin")
    log = found[0]
    server, port = start_server(bench)
    viewers = start_viewers(port, given.viewers)
    watched = psutil.Process(server.pid)
    time.sleep(SETTLE_S)
    before, rss, begin = used(watched), watched.memory_info().rss, time.monotonic()
    slowest, most, offset = 0.0, rss, 0
    while run.poll() is None:
        asked_at = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", f"/runs/{log.parent.name}/log/part?from={offset}")
        part = json.loads(connection.getresponse().read())
        connection.close()
        slowest, offset = max(slowest, time.monotonic() - asked_at), part["next"]
        most = max(most, watched.memory_info().rss)
        time.sleep(1)
    took = time.monotonic() - begin
    print(
        f"a run that logged {log.stat().st_size / 1e9:.2f} GB, with {given.viewers} viewers and one who follows its log: "
        f"server {(used(watched) - before) / took:.2%} of a core, {rss / 1e6:.1f} MB at first and {most / 1e6:.1f} MB at "
        f"most; the slowest piece of the log took {1000 * slowest:.0f} ms"
    )
    viewers.terminate()
    viewers.wait(30)
    server.terminate()
    server.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each stretch is")
    parser.add_argument("--rounds", type=int, default=4, help="pairs of stretches")
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument(
        "--capture", type=Path, default=HERE.parents[1] / "shared" / "data" / "fox", help="else the demo's"
    )
    parser.add_argument("--log-gb", type=float, default=1.0, help="0 leaves that part out")
    given = parser.parse_args()
    print("; ".join(f"{key} {value}" for key, value in describe().items()), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        if given.rounds:
            measure(given, Path(temporary))
        if given.log_gb:
            log_much(given, Path(temporary))


if __name__ == "__main__":
    main()
