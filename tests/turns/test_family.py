"""A run's processes: found wherever they went, frozen, thawed, ended, and their memory given up. All of them real."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from turntable.turns.cgroup import Cgroup, own_folder
from turntable.turns.family import MARK, CannotFreeze, Family
from turntable.turns.swap import after, mapped_ranges, page_out

PATIENCE_S = 20.0
"""For what takes a moment; only a failing test waits this long."""

PRELUDE = """
import os, signal, subprocess, sys, time

os.read(0, 1)

def tell(name):
    # Renamed into place: a test never reads half a number.
    with open(name + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(name + ".part", name)

def child():
    return os.fork() == 0

def close_everything():
    os.closerange(0, 256)

def orphan():
    # A session of its own, and no parent but init.
    if os.fork():
        os.wait()
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    return True

def work():
    while True:
        sum(range(1000))

def rest():
    while True:
        time.sleep(60)
"""


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def with_mark(mark: str) -> list[psutil.Process]:
    """Living processes with a mark, looked for without the code that is tested."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Worker:
    """A worker as a supervisor starts it; it writes files into its folder to say what it did."""

    def __init__(self, folder: Path, code: str, marked: bool, cgroup: Cgroup | None) -> None:
        self.folder = folder
        self.mark = f"{folder}-{uuid.uuid4()}"
        self.started = time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PRELUDE + code],
            cwd=folder,
            env={**os.environ, **({MARK: self.mark} if marked else {})},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._met: set[psutil.Process] = set()
        if cgroup is not None:
            cgroup.add(self.pid)
        # Only now does it begin.
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(b"!")

    def family(self, cgroup: Cgroup | None = None) -> Family:
        return Family(self.pid, self.mark, self.started, cgroup)

    def told(self, name: str) -> int:
        """The process id that something of the worker left in a file; waits for it."""
        wait_until((self.folder / name).exists)
        pid = int((self.folder / name).read_text())
        with contextlib.suppress(psutil.NoSuchProcess):
            self._met.add(psutil.Process(pid))
        return pid

    def clean_up(self) -> None:
        for process in [*self._met, *with_mark(self.mark)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers, and makes sure that nothing of them is left."""
    workers: list[Worker] = []

    def start_one(code: str, marked: bool = True, cgroup: Cgroup | None = None) -> Worker:
        folder = tmp_path / str(len(workers))
        folder.mkdir()
        workers.append(Worker(folder, code, marked, cgroup))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.clean_up()


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    group = Cgroup.create(f"test-{uuid.uuid4()}")
    if group is None:
        pytest.skip("no control group of version 2 can be made here (not Linux, or no right to)")
    yield group
    group.kill()
    wait_until(lambda: not group.pids())
    group.remove()
    assert not group.folder.exists()


@pytest.fixture(params=["SIGSTOP", "cgroup"])
def way(request: pytest.FixtureRequest) -> tuple[str, Cgroup | None]:
    """How a family is held, and the control group for it."""
    group = request.getfixturevalue("cgroup") if request.param == "cgroup" else None
    return request.param, group


def pids(family: Family) -> set[int]:
    return {member.pid for member in family.members()}


def computes(family: Family) -> bool:
    """Whether the family uses the processor within half a second."""
    before = family.cpu_seconds()
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if family.cpu_seconds() > before:
            return True
    return False


# Members


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("if child(): tell('it'); rest()", id="a child"),
        pytest.param("if child():\n  if child(): tell('it'); rest()", id="a grandchild"),
        pytest.param("if orphan(): tell('it'); rest()", id="an orphan in a session of its own"),
        pytest.param(
            "if orphan(): tell('it.'); close_everything(); tell('it'); rest()",
            id="an orphan without descriptors",
        ),
        pytest.param(
            "if child(): subprocess.run([sys.executable, '-I', '-S', '-c', "
            '\'import os, time; os.setsid(); open("it.part", "w").write(str(os.getpid())); '
            'os.rename("it.part", "it"); time.sleep(600)\'], env={})',
            id="a child of a child without environment in a session of its own",
        ),
    ],
)
def test_what_a_worker_started_is_a_member(start: Callable[..., Worker], code: str) -> None:
    worker = start(code + "\nrest()")
    other = start("tell('it'); rest()")
    it = worker.told("it")
    other.told("it")
    members = pids(worker.family())
    assert {worker.pid, it} <= members
    assert not members & {other.pid, os.getpid(), os.getppid()}


def test_an_orphan_without_a_mark_is_a_member_in_another_members_process_group(
    start: Callable[..., Worker],
) -> None:
    fork = "import os, time; os.fork() and os._exit(0); open('it.part', 'w').write(str(os.getpid()))"
    fork += "; os.rename('it.part', 'it'); time.sleep(600)"
    worker = start(
        f"if orphan(): subprocess.run([sys.executable, '-I', '-S', '-c', {fork!r}], env={{}}); rest()\nrest()"
    )
    it = worker.told("it")
    family = worker.family()
    assert it in pids(family)
    assert family.kill(0) == []
    assert not psutil.pid_exists(it) or psutil.Process(it).status() == psutil.STATUS_ZOMBIE


def test_orphans_are_members_after_the_worker_has_died(start: Callable[..., Worker]) -> None:
    worker = start("if orphan(): tell('it'); rest()")
    it = worker.told("it")
    worker.process.wait()
    assert pids(worker.family()) == {it}


def test_an_orphan_without_a_mark_is_a_member_if_it_was_seen_before(start: Callable[..., Worker]) -> None:
    worker = start("if child(): os.setsid(); os.fork() and rest(); tell('it'); rest()\nrest()", marked=False)
    it = worker.told("it")
    family = worker.family()
    parent = psutil.Process(it).ppid()
    assert pids(family) == {worker.pid, parent, it}
    os.kill(parent, signal.SIGKILL)
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: pids(family) == {it})
    assert family.kill(0) == []


def test_an_orphan_without_a_mark_is_a_member_by_its_control_group(
    start: Callable[..., Worker], cgroup: Cgroup
) -> None:
    worker = start("if orphan(): tell('it'); rest()", marked=False, cgroup=cgroup)
    it = worker.told("it")
    worker.process.wait()
    assert pids(worker.family(cgroup)) == {it}
    assert pids(worker.family()) == set()


def test_a_zombie_is_no_member(start: Callable[..., Worker]) -> None:
    worker = start("if child(): os._exit(0)\ntell('it'); rest()")
    worker.told("it")
    wait_until(lambda: pids(worker.family()) == {worker.pid})
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE)
    assert pids(worker.family()) == set()


def test_a_worker_whose_first_thread_has_ended_lives(start: Callable[..., Worker]) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux shows threads that outlive the first")
    worker = start(
        "import ctypes, threading\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), tell('it'), work())).start()\n"
        "ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)"
    )
    worker.told("it")
    wait_until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE)
    family = worker.family()
    assert pids(family) == {worker.pid}
    family.freeze()
    assert not computes(family)
    assert family.kill(0) == []


def test_a_stranger_with_the_leaders_number_is_left_alone(start: Callable[..., Worker]) -> None:
    stranger = start("if child(): tell('its child'); rest()\nrest()", marked=False)
    orphaned = start("tell('it'); rest()")
    stranger.told("its child")
    orphaned.told("it")
    family = Family(stranger.pid, orphaned.mark, started=stranger.started - 3600)
    assert pids(family) == {orphaned.pid}
    assert family.kill(0) == []
    assert orphaned.process.wait() == -signal.SIGKILL
    assert stranger.process.poll() is None
    assert psutil.Process(stranger.told("its child")).status() != psutil.STATUS_ZOMBIE


def test_a_leader_that_carries_the_mark_is_ours_whatever_the_clock_says(start: Callable[..., Worker]) -> None:
    worker = start("tell('it'); rest()")
    worker.told("it")
    assert pids(Family(worker.pid, worker.mark, worker.started - 3600)) == {worker.pid}


def test_members_memory_is_added_up(start: Callable[..., Worker]) -> None:
    worker = start("block = b'x' * 30_000_000\nif child(): tell('it'); rest()\nrest()")
    worker.told("it")
    assert 60_000_000 < worker.family().resident_bytes() < 200_000_000


# Freezing


def test_a_frozen_family_does_not_compute_until_it_is_thawed(
    start: Callable[..., Worker], way: tuple[str, Cgroup | None]
) -> None:
    worker = start("if orphan(): tell('it'); work()\nif child(): work()\nwork()", cgroup=way[1])
    family = worker.family(way[1])
    # The worker, its child, and the orphan, whose first parent has ended.
    worker.told("it")
    wait_until(lambda: len(family.members()) == 3)
    assert family.freeze() == way[0]
    assert not computes(family)
    assert len(family.members()) == 3
    # By another supervisor than the one that froze it.
    worker.family(way[1]).thaw()
    assert computes(family)


def test_a_family_that_keeps_forking_is_frozen(
    start: Callable[..., Worker], way: tuple[str, Cgroup | None]
) -> None:
    worker = start(KEEP_FORKING, cgroup=way[1])
    worker.told("beat")
    family = worker.family(way[1])
    family.freeze()
    beat = worker.told("beat")
    assert not computes(family)
    assert worker.told("beat") == beat
    family.thaw()
    wait_until(lambda: worker.told("beat") != beat)


def test_a_member_that_waits_in_the_kernel_for_its_stopped_child_counts_as_frozen(
    start: Callable[..., Worker], way: tuple[str, Cgroup | None]
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux's vfork keeps the parent from taking signals")
    # As it happens to subprocess.run, when the child is stopped before it has loaded its program.
    worker = start("import ctypes\nif ctypes.CDLL(None).vfork() == 0: tell('it'); work()", cgroup=way[1])
    it = worker.told("it")
    family = worker.family(way[1])
    assert family.freeze() == way[0]
    assert pids(family) == {worker.pid, it}
    assert not computes(family)
    family.thaw()
    assert computes(family)
    assert family.kill(0) == []


def test_members_outside_the_control_group_are_frozen_too(
    start: Callable[..., Worker], cgroup: Cgroup
) -> None:
    worker = start("if child(): tell('it'); work()\nwork()")
    worker.told("it")
    cgroup.add(worker.pid)
    family = worker.family(cgroup)
    assert family.freeze() == "cgroup"
    assert not computes(family)
    family.thaw()
    assert psutil.Process(worker.told("it")).status() == psutil.STATUS_RUNNING


def test_a_family_that_cannot_be_frozen_in_time_goes_on(
    start: Callable[..., Worker], way: tuple[str, Cgroup | None]
) -> None:
    # Outside the control group, which would freeze it at once.
    worker = start("tell('it'); work()")
    worker.told("it")
    family = worker.family(way[1])
    with pytest.raises(CannotFreeze, match=f"1 of the run's processes still ran .* \\(pid {worker.pid}\\)"):
        family.freeze(timeout_s=0)
    assert computes(family)


# Ending

KEEP_FORKING = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    tell("beat")
    time.sleep(0.005)
    if os.fork():
        os._exit(0)
"""
KEEP_FLEEING = KEEP_FORKING + "    os.setsid()\n"


@pytest.mark.parametrize("grace_s", [0, 0.1])
@pytest.mark.parametrize(
    ("code", "sign"),
    [
        pytest.param(
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "if orphan(): close_everything(); tell('it'); rest()\nrest()",
            "it",
            id="ignoring SIGTERM",
        ),
        pytest.param(KEEP_FORKING, "beat", id="forking on and on"),
        pytest.param(KEEP_FLEEING, "beat", id="forking into ever new sessions"),
        pytest.param(
            "if child():\n while True:\n  if child(): tell('it'); rest()\n  os.wait()\nrest()",
            "it",
            id="starting its child again",
        ),
    ],
)
def test_nothing_is_left_after_a_kill(
    start: Callable[..., Worker], way: tuple[str, Cgroup | None], code: str, sign: str, grace_s: float
) -> None:
    worker = start(code, cgroup=way[1])
    worker.told(sign)
    family = worker.family(way[1])
    assert family.kill(grace_s) == []
    worker.process.wait()
    last = worker.told(sign)
    assert with_mark(worker.mark) == []
    assert family.members() == []
    time.sleep(0.05)
    assert worker.told(sign) == last


@pytest.mark.parametrize("frozen", [False, True])
def test_members_get_to_tidy_up_before_they_are_killed(
    start: Callable[..., Worker], way: tuple[str, Cgroup | None], frozen: bool
) -> None:
    worker = start(
        "signal.signal(signal.SIGTERM, lambda *_: (subprocess.run(['touch', 'tidied']), os._exit(7)))\n"
        "tell('it'); rest()",
        cgroup=way[1],
    )
    worker.told("it")
    family = worker.family(way[1])
    if frozen:
        family.freeze()
    assert family.kill(PATIENCE_S) == []
    assert (worker.folder / "tidied").exists()
    assert worker.process.wait() == 7


def test_a_frozen_family_is_killed(start: Callable[..., Worker], way: tuple[str, Cgroup | None]) -> None:
    worker = start("if orphan(): tell('it'); work()\nwork()", cgroup=way[1])
    worker.told("it")
    family = worker.family(way[1])
    family.freeze()
    assert family.kill(0) == []
    assert worker.process.wait() == -signal.SIGKILL
    assert with_mark(worker.mark) == []


def test_killing_a_family_that_is_gone_does_nothing(start: Callable[..., Worker]) -> None:
    worker = start("")
    worker.process.wait()
    assert worker.family().kill(PATIENCE_S) == []


# Control groups


def test_a_control_group_that_was_left_behind_is_taken_again(
    start: Callable[..., Worker], cgroup: Cgroup
) -> None:
    worker = start("tell('it'); rest()")
    cgroup.add(worker.pid)
    again = Cgroup.create(cgroup.folder.name.removeprefix("turntable-"))
    assert again is not None and again.pids() == [worker.pid]
    again.remove()
    assert cgroup.pids() == [worker.pid], "a group in use was removed"


def test_an_empty_control_group_that_was_left_frozen_is_thawed(
    start: Callable[..., Worker], cgroup: Cgroup
) -> None:
    assert cgroup.freeze(PATIENCE_S)
    assert Cgroup.create(cgroup.folder.name.removeprefix("turntable-"))
    worker = start("tell('it'); rest()")
    cgroup.add(worker.pid)
    assert worker.told("it") == worker.pid


def test_a_supervisor_in_a_control_group_makes_one_inside_it(
    start: Callable[..., Worker], cgroup: Cgroup
) -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    worker = start(
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('cgroup', {str(source / 'turntable/turns/cgroup.py')!r})\n"
        "module = sys.modules['cgroup'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "inner = module.Cgroup.create('inner')\n"
        "pid = os.fork()\n"
        "if pid == 0: rest()\n"
        "inner.add(pid)\n"
        "tell('it'); rest()",
        cgroup=cgroup,
    )
    worker.told("it")
    inner = cgroup.folder / "turntable-inner"
    assert (inner / "cgroup.procs").read_text().strip()
    assert len(cgroup.pids()) == 2
    assert worker.family(cgroup).kill(0) == []
    worker.process.wait()
    cgroup.remove()
    assert not cgroup.folder.exists()


def test_a_control_group_is_killed_where_the_kernel_has_no_file_for_it(
    start: Callable[..., Worker], cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start(KEEP_FORKING, cgroup=cgroup)
    worker.told("beat")

    def absent(path: Path, flags: int) -> int:
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr("turntable.turns.cgroup.os.open", absent)
        cgroup.kill()
    worker.process.wait()
    assert cgroup.pids() == []
    assert with_mark(worker.mark) == []


def test_a_control_groups_name_must_be_safe() -> None:
    for name in ("", "a/b", "../up", "a b", "ü"):
        with pytest.raises(ValueError, match="A-Z a-z 0-9"):
            Cgroup.create(name)


def test_a_removed_control_group_is_quiet(cgroup: Cgroup) -> None:
    cgroup.remove()
    cgroup.remove()
    cgroup.thaw()
    cgroup.kill()
    assert cgroup.pids() == []
    assert not cgroup.freeze(PATIENCE_S)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
CONTAINER = "99 90 0:26 /docker/ab /sys/fs/cgroup ro master:9 - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "own", "folder"),
    [
        (V2, "0::/user.slice/a.scope\n", "/sys/fs/cgroup/user.slice/a.scope"),
        (V2, "0::/\n", "/sys/fs/cgroup"),
        (HYBRID, "4:memory:/x\n0::/y\n", "/sys/fs/cgroup/unified/y"),
        (HYBRID.splitlines()[0], "1:cpu:/\n0::/\n", None),
        (V2, "1:cpu:/\n", None),
        (CONTAINER, "0::/docker/ab/c\n", "/sys/fs/cgroup/c"),
        (CONTAINER, "0::/elsewhere\n", None),
        (V2, "0::/../outside\n", None),
        (V2.replace("/sys/fs/cgroup", "/mnt/with\\040blank"), "0::/a\n", "/mnt/with blank/a"),
        ("", "0::/\n", None),
    ],
)
def test_our_own_control_group_is_found(mountinfo: str, own: str, folder: str | None) -> None:
    assert own_folder(mountinfo, own) == (Path(folder) if folder else None)


# Swap


def test_a_frozen_workers_memory_is_given_up_and_comes_back_whole(
    start: Callable[..., Worker], swap: None
) -> None:
    worker = start(
        "import zlib\n"
        "block = bytearray(os.urandom(2_000_000) * 100)\n"
        "before = zlib.crc32(block)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "tell('it')\n"
        "signal.sigwait([signal.SIGUSR1])\n"
        "os._exit(0 if zlib.crc32(block) == before else 1)"
    )
    worker.told("it")
    family = worker.family()
    family.freeze()
    resident = family.resident_bytes()
    assert resident > 200_000_000
    given_up = page_out(member.pid for member in family.members())
    left = family.resident_bytes()
    assert left < resident / 2
    assert given_up == pytest.approx(resident - left, abs=10_000_000)
    family.thaw()
    os.kill(worker.pid, signal.SIGUSR1)
    assert worker.process.wait() == 0


def test_giving_up_the_memory_of_what_is_gone_does_nothing(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Swap is made for one test alone: another's, in another process of pytest-xdist, would go while it is used.
    monkeypatch.setattr("turntable.turns.swap.swap_free_bytes", lambda: 2**30)
    worker = start("")
    worker.process.wait()
    assert page_out([worker.pid]) == 0


def test_without_swap_no_memory_is_given_up(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turntable.turns.swap.swap_free_bytes", lambda: 0)
    worker = start("tell('it'); rest()")
    worker.told("it")
    before = worker.family().resident_bytes()
    assert page_out([worker.pid]) == 0
    assert worker.family().resident_bytes() == before


def test_the_kernels_own_ranges_are_left_out() -> None:
    maps = (
        "55d0c0a00000-55d0c0a01000 r--p 00000000 fe:00 1234                       /usr/bin/a program\n"
        "7f0000000000-7f0000003000 rw-p 00000000 00:00 0 \n"
        "7ffd1000-7ffd2000 rw-p 00000000 00:00 0                          [stack]\n"
        "7ffd3000-7ffd4000 r--p 00000000 00:00 0                          [vvar]\n"
        "7ffd4000-7ffd5000 r--p 00000000 00:00 0                          [vvar_vclock]\n"
        "7ffd5000-7ffd6000 r-xp 00000000 00:00 0                          [vdso]\n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]\n"
    )
    assert mapped_ranges(maps) == [
        (0x55D0C0A00000, 0x55D0C0A01000),
        (0x7F0000000000, 0x7F0000003000),
        (0x7FFD1000, 0x7FFD2000),
    ]


@pytest.mark.parametrize(
    ("done", "left"),
    [
        (0, [(0, 10), (20, 25)]),
        (4, [(4, 10), (20, 25)]),
        (10, [(20, 25)]),
        (12, [(22, 25)]),
        (15, []),
    ],
)
def test_the_kernel_is_asked_for_the_rest_where_it_stopped(done: int, left: list[tuple[int, int]]) -> None:
    assert after([(0, 10), (20, 25)], done) == left
