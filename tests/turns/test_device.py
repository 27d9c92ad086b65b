"""Device locks between real processes, whoever dies; and which process is meant by a name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from turntable.errors import TurntableError
from turntable.turns import device as device_module
from turntable.turns.device import DeviceLock, Holder, check_device, devices, fitting, locks_folder
from turntable.turns.identity import Who, alive, me, started, this_boot
from turntable.turns.policy import Device


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's folder of locks, for this test alone."""
    folder = tmp_path / "locks"
    monkeypatch.setenv("TURNTABLE_LOCKS", str(folder))
    return folder


@pytest.fixture
def lock() -> Iterator[Callable[[], DeviceLock]]:
    """Opens the device's lock anew: as good as another process, since what is locked is the opened file."""
    opened = []

    def open_lock() -> DeviceLock:
        opened.append(DeviceLock("cuda:0"))
        return opened[-1]

    yield open_lock
    for one in opened:
        one.close()


class Other:
    """A process that does with the device's lock what it is told, a line at a time, and prints what came of it."""

    CODE = """
import os, subprocess, sys
from turntable.turns.device import DeviceLock
lock = DeviceLock("cuda:0")
for line in sys.stdin:
    what = line.strip()
    if what == "take":
        print(lock.take(), flush=True)
    elif what == "child":  # that inherits the lock, and is told nothing of its parent's end
        child = subprocess.Popen(["cat"], stdin=int(sys.argv[1]), stdout=subprocess.DEVNULL, pass_fds=[lock.descriptor])
        print(child.pid, flush=True)
    elif what == "wait":
        lock.wait_in_line(True)
        print("waits", flush=True)
    elif what == "release":
        lock.release()
        print("released", flush=True)
"""

    def __init__(self) -> None:
        ends, self.childs_life = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(ends)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[ends],
        )
        os.close(ends)

    def tell(self, what: str) -> str:
        self.ask(what)
        return self.answer()

    def ask(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it, and the child that it may have left behind."""
        os.close(self.childs_life)
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def other() -> Iterator[Callable[[], Other]]:
    """Starts a process that handles the device's lock."""
    begun: list[Other] = []

    def begin() -> Other:
        begun.append(Other())
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


# The lock ------------------------------------------------------------------------------------------------------------


def test_of_processes_that_race_for_a_device_one_gets_it(
    other: Callable[[], Other], lock: Callable[[], DeviceLock]
) -> None:
    racers = [other() for _ in range(4)]
    for _ in range(5):
        for racer in racers:
            racer.ask("take")
        taken = [racer.answer() for racer in racers]
        assert sorted(taken) == ["False", "False", "False", "True"]
        assert lock().take() is False
        racers[taken.index("True")].tell("release")


def test_the_lock_goes_with_its_holder(other: Callable[[], Other], lock: Callable[[], DeviceLock]) -> None:
    holder, mine = other(), lock()
    assert holder.tell("take") == "True" and not mine.take()
    holder.kill()
    assert mine.take()


def test_the_lock_outlives_a_killed_holder_for_as_long_as_its_child_lives(
    other: Callable[[], Other], lock: Callable[[], DeviceLock]
) -> None:
    holder, mine = other(), lock()
    assert holder.tell("take") == "True"
    child = int(holder.tell("child"))
    holder.kill()
    assert not mine.take(), "the child holds the device still"
    kill_and_see_dead(child)
    assert mine.take()


def kill_and_see_dead(pid: int) -> None:
    """Kill a process that isn't our child, and wait until it has: what it had open is closed by then."""
    os.kill(pid, signal.SIGKILL)
    while started(pid) is not None:
        time.sleep(0.01)


def test_what_is_released_is_free_though_a_child_has_it_open_still(
    other: Callable[[], Other], lock: Callable[[], DeviceLock]
) -> None:
    holder, mine = other(), lock()
    assert holder.tell("take") == "True"
    child = int(holder.tell("child"))
    holder.tell("release")
    assert mine.take() and started(child) is not None
    assert holder.tell("take") == "False", "and the old holder has to wait like anybody else"
    mine.release()
    assert holder.tell("take") == "True"
    holder.kill()
    assert not mine.take(), "taken again, it is the child's again as well"


def test_a_device_can_be_taken_again_and_again(lock: Callable[[], DeviceLock]) -> None:
    mine, theirs = lock(), lock()
    for _ in range(3):
        assert mine.take() and mine.held
        assert mine.take(), "who has it has it"
        assert not theirs.take() and not theirs.held
        mine.release()
        assert not mine.held
        mine.release()
        assert theirs.take()
        theirs.release()


def test_devices_are_locked_apart(lock: Callable[[], DeviceLock]) -> None:
    others = [DeviceLock(name) for name in ("cpu", "cuda:1", "cuda:10")]
    assert lock().take() and all(other.take() for other in others)
    assert len({other.path for other in others}) == 3
    for other in others:
        other.close()


def test_release_by_who_doesnt_hold_it_takes_it_from_nobody(lock: Callable[[], DeviceLock]) -> None:
    mine, theirs, third = lock(), lock(), lock()
    assert mine.take() and not theirs.take()
    theirs.release()
    assert not third.take()


def test_a_closed_lock_is_free(lock: Callable[[], DeviceLock]) -> None:
    mine = DeviceLock("cuda:0")
    assert mine.take()
    mine.close()
    assert lock().take()


def test_a_lock_file_that_was_removed_doesnt_let_two_in(lock: Callable[[], DeviceLock]) -> None:
    # Regression: a supervisor that had the file open before it was tidied away, and one that came after, both held cuda:0.
    before = lock()
    before.path.unlink()
    after = lock()
    assert before.take() and not after.take()
    assert os.path.samestat(os.fstat(before.descriptor), before.path.stat()), "a worker inherits the new one"
    before.release()
    assert after.take() and not before.take()


def test_a_lock_file_that_was_removed_is_made_again(lock: Callable[[], DeviceLock]) -> None:
    mine = lock()
    mine.path.unlink()
    assert mine.take() and not lock().take()


def test_whether_a_device_is_held_is_seen_by_all_who_ask(lock: Callable[[], DeviceLock]) -> None:
    mine, theirs = lock(), lock()
    assert not theirs.is_held() and device_module.is_held("cuda:0") is False
    assert mine.take()
    assert theirs.is_held() and device_module.is_held("cuda:0") is True, "who hasn't said its name"
    mine.say(HOLDER)
    assert device_module.is_held("cuda:0") == HOLDER
    assert device_module.is_held("cuda:1") is False
    mine.release()
    assert not theirs.is_held() and device_module.is_held("cuda:0") is False
    assert theirs.take(), "who has asked has nothing of it left"


def test_the_holder_sees_that_others_wait(other: Callable[[], Other], lock: Callable[[], DeviceLock]) -> None:
    mine = lock()
    assert mine.take() and not mine.others_wait()
    waiting = [other(), other()]
    for one in waiting:
        assert one.tell("wait") == "waits"
    assert mine.others_wait() and mine.others_wait()
    waiting[0].kill()
    assert mine.others_wait()
    waiting[1].kill()
    assert not mine.others_wait(), "the dead wait for nothing"


def test_who_no_longer_waits_is_no_longer_seen_waiting(lock: Callable[[], DeviceLock]) -> None:
    mine, theirs = lock(), lock()
    theirs.wait_in_line(True)
    theirs.wait_in_line(True)
    assert mine.others_wait()
    theirs.wait_in_line(False)
    theirs.wait_in_line(False)
    assert not mine.others_wait()


def test_to_wait_isnt_to_hold(lock: Callable[[], DeviceLock]) -> None:
    mine, theirs = lock(), lock()
    theirs.wait_in_line(True)
    assert mine.take()


def test_who_waits_gets_the_device_when_others_are_let_in(
    lock: Callable[[], DeviceLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = lock(), lock()
    assert mine.take()
    taken = []
    monkeypatch.setattr(device_module.time, "sleep", lambda seconds: taken.append(theirs.take()))
    mine.let_others_in()
    assert taken == [True] and not mine.take()


HOLDER = Holder("/somewhere/bench", "fox-splat-1", 1000, Who(7, 8, "boot pid:[9]"))


def test_who_holds_a_device_says_so_to_all(lock: Callable[[], DeviceLock]) -> None:
    mine, theirs = lock(), lock()
    assert theirs.holder() is None
    mine.take()
    mine.say(HOLDER)
    assert theirs.holder() == HOLDER
    shorter = replace(HOLDER, bench="/b")
    mine.say(shorter)
    assert theirs.holder() == shorter
    mine.release()
    assert theirs.holder() is None, "who takes it finds nobody who died with it"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"bench": "/b"}', "\xff", '{"bench": 1, "run'])
def test_a_garbled_holder_is_nobody(lock: Callable[[], DeviceLock], text: str) -> None:
    mine = lock()
    mine.path.write_bytes(text.encode("latin-1"))
    assert mine.holder() is None


@pytest.mark.parametrize(
    "fault",
    [
        {"bench": 5},
        {"run": None},
        {"user": "root"},
        {"user": True},
        {"supervisor": None},
        {"supervisor": {"pid": 7, "started": 8, "boot": 9}},
        {"supervisor": {"pid": "7", "started": 8, "boot": "b"}},
        {"supervisor": {"pid": 7, "started": 8.5, "boot": "b"}},
    ],
)
def test_a_holder_of_wrong_types_is_nobody(lock: Callable[[], DeviceLock], fault: dict[str, object]) -> None:
    # Regression: alive() raised AttributeError on a boot that was a number, and ended the supervisor that had only looked.
    mine = lock()
    fields = {"bench": "/b", "run": "r", "user": 0, "supervisor": {"pid": 7, "started": 8, "boot": "b"}}
    mine.path.write_text(json.dumps(fields | fault))
    assert mine.holder() is None


def test_a_holder_that_is_nested_without_end_is_nobody(lock: Callable[[], DeviceLock]) -> None:
    mine = lock()
    mine.path.write_text("[" * 50_000)
    assert mine.holder() is None


# Where the locks lie -------------------------------------------------------------------------------------------------


def test_the_folder_and_its_files_are_for_all_users(locks: Path, lock: Callable[[], DeviceLock]) -> None:
    before = os.umask(0o077)
    try:
        mine = lock()
    finally:
        os.umask(before)
    assert locks_folder() == locks
    assert stat.S_IMODE(locks.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(file.stat().st_mode) for file in locks.iterdir()} == {0o666}
    assert mine.path.parent == locks


def test_a_folder_that_is_there_is_left_as_it_is(locks: Path, lock: Callable[[], DeviceLock]) -> None:
    locks.mkdir(mode=0o750)
    lock()
    assert stat.S_IMODE(locks.stat().st_mode) == 0o750


def test_without_a_name_the_first_place_that_is_there_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TURNTABLE_LOCKS")
    monkeypatch.setattr(device_module, "PLACES", (str(tmp_path / "not there"), str(tmp_path)))
    assert locks_folder() == tmp_path / "turntable"
    assert not (tmp_path / "not there").exists(), "a system's folder isn't for us to make"


def test_a_folder_that_cant_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("TURNTABLE_LOCKS", str(place))
        with pytest.raises(TurntableError) as caught:
            DeviceLock("cpu")
        assert "\n" not in str(caught.value)
        assert str(place) in str(caught.value) and "Set TURNTABLE_LOCKS" in str(caught.value)


AS_NOBODY = """
import os, sys
from turntable.turns import device
device.DeviceLock("unused")
if os.getuid() == 0:
    os.setuid(65534)
try:
    lock = device.DeviceLock("cuda:0")
    print(lock.take())
except device.TurntableError as error:
    print(error)
"""


def as_nobody() -> str:
    """What becomes of the device's lock for a process that isn't root, in the words of AS_NOBODY."""
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def open_to_all(tmp_path: Path) -> None:
    """Lets other users through to the test's folder."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            return
        folder.chmod(folder.stat().st_mode | 0o011)


@pytest.mark.usefixtures("open_to_all")
def test_a_folder_that_may_not_be_written_is_one_line(locks: Path, lock: Callable[[], DeviceLock]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make itself another user")
    lock()
    locks.chmod(0o755)
    said = as_nobody()
    assert "\n" not in said and f"{locks} can't be made or written" in said


@pytest.mark.usefixtures("open_to_all")
def test_another_user_shares_the_lock(lock: Callable[[], DeviceLock]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make itself another user")
    mine = lock()
    assert mine.take() and as_nobody() == "False"
    mine.release()
    assert as_nobody() == "True"


@pytest.mark.parametrize("points_to", ["a file", "nothing"])
@pytest.mark.parametrize("name", ["cuda-0.lock", "cuda-0.waiting"])
def test_a_link_in_place_of_a_lock_is_refused(locks: Path, tmp_path: Path, name: str, points_to: str) -> None:
    locks.mkdir()
    target = tmp_path / "precious"
    if points_to == "a file":
        target.write_text("mine")
    (locks / name).symlink_to(target)
    with pytest.raises(TurntableError, match="can't be opened") as caught:
        DeviceLock("cuda:0")
    assert "\n" not in str(caught.value) and str(locks / name) in str(caught.value)
    assert target.read_text() == "mine" if points_to == "a file" else not target.exists()


def test_a_folder_in_place_of_a_lock_is_refused(locks: Path) -> None:
    (locks / "cuda-0.lock").mkdir(parents=True)
    with pytest.raises(TurntableError, match="can't be opened"):
        DeviceLock("cuda:0")


# Wishes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1", "cuda:15"])
def test_a_device_has_one_of_these_names(name: str) -> None:
    assert check_device(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:1234", "cuda:0\n", " cpu", "cuda:1 "],
)
def test_no_device_has_another_name(name: str) -> None:
    with pytest.raises(TurntableError, match="A device is cpu, cuda or cuda:<number>, not ") as caught:
        check_device(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["cuda:01", "cuda:00", "cuda:１", "cuda:²"])
def test_a_card_has_one_name(name: str) -> None:
    with pytest.raises(TurntableError):
        check_device(name)


def test_a_wish_is_for_the_devices_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    known = tuple(Device(name, name) for name in ("cpu", "cuda:0", "cuda:1", "cuda:10"))
    monkeypatch.setattr(device_module, "devices", lambda: known)
    assert fitting("cpu") == ["cpu"]
    assert fitting("cuda") == ["cuda:0", "cuda:1", "cuda:10"]
    assert fitting("cuda:1") == ["cuda:1"]
    assert fitting("cuda:7") == []


def test_the_processor_is_a_device_of_this_machine_and_knows_its_memory() -> None:
    processor = devices()[0]
    assert (processor.name, processor.model, processor.turn) == ("cpu", "cpu", None)
    assert processor.memory_bytes is not None and processor.memory_bytes > 2**28


# Who -----------------------------------------------------------------------------------------------------------------


def test_i_am_alive() -> None:
    assert me().pid == os.getpid() and me() == me()
    assert alive(me()) is True


def test_a_process_is_alive_until_it_has_ended_though_nobody_has_asked_how() -> None:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    born = started(process.pid)
    assert born is not None
    who = replace(me(), pid=process.pid, started=born)
    assert alive(who) is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its remains stay
    assert alive(who) is False and started(process.pid) is None
    process.communicate()
    assert alive(who) is False


def test_a_process_with_an_odd_name_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/cat")
    process = subprocess.Popen([program], stdin=subprocess.PIPE)
    born = started(process.pid)
    assert born is not None and born >= me().started
    process.communicate()


def test_an_id_that_has_come_round_again_is_another_process() -> None:
    assert alive(replace(me(), started=me().started - 1)) is False
    assert alive(replace(me(), started=me().started + 1)) is False


@pytest.mark.parametrize("pid", [2**31, 10**12, 10**300], ids=["2**31", "10**12", "10**300"])
def test_an_id_that_no_process_can_have_is_nobodys(pid: int) -> None:
    # A lock file says what anybody has written into it.
    assert alive(replace(me(), pid=pid)) is False


def test_nobody_lives_on_from_another_boot() -> None:
    boot, space = this_boot().split(" ")
    assert alive(replace(me(), boot=f"{boot[::-1]} {space}")) is False


def test_of_a_process_in_another_container_nothing_is_known() -> None:
    boot, space = this_boot().split(" ")
    assert space.startswith("pid:[")
    assert alive(replace(me(), boot=f"{boot} pid:[1]")) is None


def test_a_process_that_the_system_hides_isnt_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["true"])
    process.wait()

    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    assert alive(replace(me(), pid=process.pid)) is False
    monkeypatch.setattr(os, "kill", refuse)
    assert alive(replace(me(), pid=process.pid)) is None


HIDES = """
mount -t proc -o hidepid=$1 proc /proc || exit 77
exec "$2" -c "$3"
"""
LOOKS = """
import os
from dataclasses import replace
from turntable.turns.identity import alive, me, started
root = replace(me(), pid=os.getppid(), started=started(os.getppid()))
nobody = replace(root, pid=0x3FFFFF)
os.setgroups([])
os.setgid(65534)  # root's group is spared
os.setuid(65534)
print(alive(root), alive(nobody))
"""


@pytest.mark.parametrize("hidepid", [0, 1, 2])
def test_another_users_process_lives_on_though_proc_hides_it(hidepid: int) -> None:
    # Regression: where /proc is mounted with hidepid, as on many shared machines, the supervisors of all other users counted
    # as dead (2), or asking after them was an error (1).
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount /proc in another way")
    command = ["unshare", "--mount", "sh", "-c", HIDES, "sh", str(hidepid), sys.executable, LOOKS]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip(f"this container may not mount /proc: {done.stderr.strip()}")
    assert done.stdout.strip() == ("None False" if hidepid else "True False"), done.stderr
