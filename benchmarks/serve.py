"""What `turntable serve` with many viewers costs a running compare: steps per second with and without, by turns.

    python benchmarks/serve.py [--seconds 60] [--pairs 120] [--stretch 3] [--viewers 200] [--log-gb 1]

One compare trains all along, on a scene that doesn't grow, so that every step costs the same. First the server and its
viewers are at work for --seconds, without a break: what they use, and whether their memory is flat. Then they are stopped
(SIGSTOP) and let go on by turns, --stretch seconds each and in the order ABBA, --pairs times: a machine's speed drifts by
more in a minute than any server costs. Steps come from the run's events, interpolated to the ends of each stretch. The
viewers are a process of their own and would be other machines: their processor time is told apart, and is in the
difference all the same. Afterwards a run logs --log-gb gigabytes in a minute while the server is watched: its memory is to
stay flat.
"""

from __future__ import annotations

import argparse
import bisect
import http.client
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from turntable.machine import describe

HERE = Path(__file__).resolve().parent
SETTLE_S = 3.0
"""After a server or its viewers have started: what starting costs is no part of what is measured."""

TURN_S = 0.25
"""After a change of turns, before a stretch begins: whoever goes on catches up with what it missed."""

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


def steps_at(events: Path, moments: Sequence[float]) -> list[float]:
    """The steps of a run at some moments, between the lines of its events."""
    lines = (json.loads(line) for line in events.read_text().splitlines())
    seen = [(event["time"], event["steps"]) for event in lines if event["type"] == "progress"]
    found = []
    for moment in moments:
        after = bisect.bisect(seen, (moment, 0))
        (t0, s0), (t1, s1) = seen[after - 1], seen[after]
        found.append(s0 + (s1 - s0) * (moment - t0) / (t1 - t0))
    return found


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


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
    whole = given.warm_up + given.seconds + 2 * given.pairs * (given.stretch + 2 * TURN_S) + 60
    compare, events = start_compare(bench, source, whole)
    print(f"{' '.join(source)}: run {events.parent.name}", flush=True)
    try:
        time.sleep(given.warm_up)  # the first steps are quicker than those after them
        server, port = start_server(bench)
        viewers = start_viewers(port, given.viewers)
        time.sleep(SETTLE_S)
        at_work(given, server.pid, viewers.pid)
        try:
            stretches = by_turns(given, [server.pid, viewers.pid])
        except BaseException:  # Ctrl-C too: a stopped process would stay for ever
            server.kill()
            viewers.kill()
            raise
        viewers.terminate()
        got = json.loads(viewers.communicate(timeout=30)[0])
        server.send_signal(signal.SIGINT)
        server.wait(30)
        print(
            f"each viewer had {min(got)[0]}–{max(got)[0]} events, {sum(size for _, size in got) / 1e6:.2f} MB in all"
        )
        time.sleep(2.5)  # the event after the last end
        tell_difference(given, events, stretches)
    finally:
        subprocess.run(
            command("cancel", events.parent.name, "--bench", str(bench)), stdout=subprocess.DEVNULL
        )
        compare.wait(120)


def at_work(given: argparse.Namespace, server: int, viewers: int) -> None:
    """What server and viewers use while they are at work without a break."""
    watched, watching = psutil.Process(server), psutil.Process(viewers)
    before, most = (used(watched), used(watching)), (first := watched.memory_info().rss)
    begin = time.monotonic()
    while time.monotonic() - begin < given.seconds:
        time.sleep(1)
        most = max(most, watched.memory_info().rss)
    took = time.monotonic() - begin
    cores = [(used(watched) - before[0]) / took, (used(watching) - before[1]) / took]
    print(
        f"{given.viewers} viewers for {took:.0f} s: server {cores[0]:.2%} of a core, memory {first / 1e6:.1f} MB at first, "
        f"{most / 1e6:.1f} MB at most; viewers {cores[1]:.2%} of a core",
        flush=True,
    )


def by_turns(given: argparse.Namespace, processes: Sequence[int]) -> list[tuple[str, float, float]]:
    """Stretches without (``A``) and with (``B``) these processes, each with its begin and end; at last they are at work."""
    stretches = []
    for kind in ("ABBA" * given.pairs)[: 2 * given.pairs]:
        for process in processes:
            os.kill(process, signal.SIGSTOP if kind == "A" else signal.SIGCONT)
        time.sleep(TURN_S)
        begin = time.time()
        time.sleep(given.stretch)
        stretches.append((kind, begin, time.time()))
    for process in processes:
        os.kill(process, signal.SIGCONT)
    return stretches


def tell_difference(
    given: argparse.Namespace, events: Path, stretches: Sequence[tuple[str, float, float]]
) -> None:
    """Steps per second with the server and its viewers against alone, over pairs of neighbouring stretches."""
    steps = steps_at(events, [moment for _, *ends in stretches for moment in ends])
    rates = [
        (kind, (last - first) / (end - begin))
        for (kind, begin, end), first, last in zip(stretches, steps[::2], steps[1::2], strict=True)
    ]
    changes = []
    for one, other in zip(rates[::2], rates[1::2], strict=True):
        pair = dict((one, other))
        changes.append(pair["B"] / pair["A"] - 1)
    alone, served = ([rate for kind, rate in rates if kind == wanted] for wanted in "AB")
    error = statistics.stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else float("nan")
    change = f"{statistics.mean(changes):+.2%} ± {error:.2%} (standard error over pairs)"
    print(
        f"{len(changes)} pairs of {given.stretch:g} s: {statistics.mean(alone):.1f} steps/s alone, "
        f"{statistics.mean(served):.1f} with {given.viewers} viewers: {change}, median {statistics.median(changes):+.2%}; "
        f"of the sums {sum(served) / sum(alone) - 1:+.2%}",
        flush=True,
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
    parser.add_argument(
        "--warm-up", type=float, default=30.0, help="seconds of training before anything is measured"
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long all are at work without a break"
    )
    parser.add_argument(
        "--pairs", type=int, default=120, help="pairs of stretches, alone and served; 0 leaves all that out"
    )
    parser.add_argument("--stretch", type=float, default=3.0, help="seconds of each")
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument(
        "--capture", type=Path, default=HERE.parents[1] / "shared" / "data" / "fox", help="else the demo's"
    )
    parser.add_argument("--log-gb", type=float, default=1.0, help="0 leaves that part out")
    given = parser.parse_args()
    print("; ".join(f"{key} {value}" for key, value in describe().items()), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        if given.pairs:
            measure(given, Path(temporary))
        if given.log_gb:
            log_much(given, Path(temporary))


if __name__ == "__main__":
    main()
