"""The rota: what a supervisor process does until all the runs that it answers for have ended.

It has a thread for every device that these may use. Each asks the policy who is next on its device, takes the device's
kernel lock, gives that run its turn and lets go. All supervisors of a bench look at the same queue and decide by the same
function, so that it doesn't matter which of them gives a run its turn: each works on whatever is next, and those that hold
no device wait. The process itself says that it lives, looks whether its own runs have ended, and passes on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from ..errors import TurntableError
from ..record import Record, State
from ..run import RunFolder, settle
from . import policy
from .cuda import gpu_processes
from .device import LOOK_EVERY_S, DeviceLock, Holder, devices, fitting, free_card_bytes, is_held
from .identity import alive, me
from .limits import sweep
from .process import kill_leftovers
from .queue import CANCEL, GIVEN_UP, HEARTBEAT_S, PAUSE, RELEASE, RESUME, Entry, Queue, Snapshot
from .supervisor import CannotGoOn, Grant, RunBusy, Stop, Supervisor
from .watcher import Watcher
from .wishes import grant

SPARE_MEMORY = 0.25
"""Share of the machine's memory that must be left for a process to stay parked: the next run has to fit, and the files that
all of them read should stay in the page cache."""

DEAD_FOR_S = 2.0
"""A killed supervisor's worker is killed by the kernel at once; what holds the device for longer was left behind."""

NEWS_S = 0.5
"""A device that is held for less isn't worth a line."""

SEEN_STILL_S = 10.0
"""For so long we ourselves must have seen a heart not beat before we end its process: a machine that slept for an hour wakes
up with every lease expired."""

WEIGH_EVERY_S = 2.0

TWICE_S = 1.0
"""A second signal that comes sooner than this is the first one's echo."""

LONG_REFUSED = 100
"""A minute or more of asking for a run's process that its keeper neither gives a turn nor lets go."""


class Rota:
    """A supervisor process at work."""

    def __init__(
        self,
        bench: Path,
        open_record: Callable[[], Record],
        prepare: Callable[[Record, str], Supervisor],
        watcher: Watcher,
    ) -> None:
        """Prepare to work.

        Args:
            bench: the bench's folder.
            open_record: gives a connection to its record; called once in every thread.
            prepare: makes the supervisor of a run; raises CannotGoOn where that run can't be worked on.
            watcher: told how it goes, from several threads (see Guarded).
        """
        self.bench = bench
        self.open_record = open_record
        self.prepare = prepare
        self.watcher = watcher
        self.who = me()
        self.faults: dict[str, str] = {}
        """Why a run that was wanted can't be worked on, by run."""
        self.wanted: frozenset[str] = frozenset()
        """The runs that this process answers for."""
        self.stopping: Stop | None = None
        self._errors: list[BaseException] = []
        self._signals: list[float] = []
        """When somebody wanted us to end, by the monotonic clock."""
        self.own: set[str] = set()
        """The runs that have a turn by us, or are kept by us."""

    def work(self, wanted: Sequence[str], detached: bool = False) -> None:
        """Work until all of ``wanted`` have ended, or can't be worked on (see ``faults``).

        Raises:
            KeyboardInterrupt: interrupted; those of ``wanted`` that nobody else answers for are paused.
            TurntableError: the bench can't be written.
        """
        self.wanted = frozenset(wanted)
        record = self.open_record()
        queue = Queue(record)
        entries = queue.snapshot().entries
        names = sorted({name for run in wanted if run in entries for name in fitting(entries[run].wants)})
        self._forget_keepers(queue, entries, wanted)
        sweep()
        queue.enter(self.who, wanted, names, detached)
        threads = [threading.Thread(target=self._serve, args=(name,), daemon=True) for name in names]
        threads.append(threading.Thread(target=self._beat, daemon=True))
        with self._told_by_signals():
            try:
                try:
                    for thread in threads:
                        thread.start()
                    self._attend(queue, wanted)
                finally:
                    self._end_threads(threads)
                    queue.leave(self.who)
                if self._errors:
                    raise self._errors[0]
                if self._signals:
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pause_abandoned(self.bench, record, queue, wanted)
                raise
            finally:
                record.close()

    @contextlib.contextmanager
    def _told_by_signals(self) -> Iterator[None]:
        """Whoever wants this process to end only leaves word of it: an exception might come at any moment, and twice.

        Signals that nobody handles, or that are ignored, stay as they are; so do all outside of the main thread.
        """
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if callable(handler := signal.getsignal(number)):
                    before[number] = handler
                    signal.signal(number, self._note_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_signal(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        # A closed terminal says it twice at once, and so does a nervous hand.
        if self._signals and now - self._signals[0] > TWICE_S:
            self.stopping = Stop.KILL
        elif self.stopping is None:
            self.stopping = Stop.INTERRUPT
        self._signals.append(now)

    def _forget_keepers(self, queue: Queue, entries: dict[str, Entry], wanted: Sequence[str]) -> None:
        """A process that was kept in memory is gone where nobody holds its run."""
        for run in wanted:
            if run not in entries or entries[run].kept_on is None:
                continue
            if (lock := RunFolder(self.bench / "runs" / run).lock("supervisor.lock")) is not None:
                lock.close()
                queue.note_kept(run, None)

    def _attend(self, queue: Queue, wanted: Sequence[str]) -> None:
        """Wait for the wanted runs to end."""
        onlooker = Onlooker(self.watcher)
        while not self._errors and self.stopping is None:
            snapshot = queue.snapshot()
            there = [snapshot.entries[run] for run in wanted if run in snapshot.entries]
            self.faults = {entry.run: entry.fault for entry in there if entry.fault is not None}
            left = [entry for entry in there if entry.fault is None]
            if not left:
                return
            onlooker.look(snapshot, [entry for entry in left if entry.run not in self.own])
            time.sleep(LOOK_EVERY_S)

    def _end_threads(self, threads: Sequence[threading.Thread]) -> None:
        """Have every thread end its turn; another signal meanwhile hurries them."""
        if self.stopping is None:
            self.stopping = Stop.INTERRUPT
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                if thread.is_alive():
                    thread.join(LOOK_EVERY_S)

    def _beat(self) -> None:
        """Say that we live, in a thread that nothing else holds up."""
        try:
            record = self.open_record()
            queue = Queue(record)
            beaten = time.monotonic()
            while self.stopping is None:
                if time.monotonic() - beaten > HEARTBEAT_S:
                    beaten = time.monotonic()
                    queue.beat(self.who)
                time.sleep(LOOK_EVERY_S)
            record.close()
        except BaseException as error:  # noqa: BLE001  # the main thread raises it
            self._errors.append(error)

    def _serve(self, name: str) -> None:
        """Give turns on one device until the process is to end."""
        try:
            record = self.open_record()
            server = DeviceServer(self, name, record)
            try:
                while self.stopping is None:
                    if not server.give_turn():
                        time.sleep(LOOK_EVERY_S)
            finally:
                server.close()
                record.close()
        except BaseException as error:  # noqa: BLE001  # the main thread raises it
            self._errors.append(error)


class DeviceServer:
    """Gives turns on one device. Lives in one thread, since the kernel kills a worker whose parent thread ends."""

    def __init__(self, rota: Rota, name: str, record: Record) -> None:
        self.rota = rota
        self.name = name
        self.record = record
        self.queue = Queue(record)
        self.lock = DeviceLock(name)
        self.kept: dict[str, Supervisor] = {}
        """Runs that have no turn but whose processes are in memory, longest first."""
        self._refused: dict[str, int] = {}
        self._holder_seen: tuple[object, float] = (None, 0.0)
        self._looked = self._weighed = 0.0
        self._said_busy = False

    def close(self) -> None:
        """End what is kept, and let go of the device."""
        for run in list(self.kept):
            self._let_go(run)
        self.lock.close()

    def give_turn(self) -> bool:
        """Give whoever is next a turn, to its end; False if there is nobody, or the device is held."""
        snapshot = self.queue.snapshot()
        self._tidy(snapshot)
        # A process that is about to end, since its own runs have, doesn't begin with others'.
        if not self.rota.wanted & snapshot.entries.keys():
            return False
        start = self._decide(snapshot)
        if start is None and self.name not in snapshot.leases:
            self.lock.wait_in_line(False)
            return False
        if start is not None and not self._is_for_us(snapshot.entries[start.run]):
            return False  # another supervisor does it
        if not self.lock.take():
            self._look_at_holder(snapshot)
            return False
        self.lock.wait_in_line(False)
        self._said_busy = False
        try:
            self._succeed_the_dead(snapshot)
            # Decided again with the lock in hand: somebody may have had a turn since.
            snapshot = self.queue.snapshot()
            start = self._decide(snapshot)
            if start is None or not self._is_for_us(snapshot.entries[start.run]):
                return False
            return self._turn(start)
        finally:
            if self.lock.others_wait():
                self.lock.let_others_in()
            self.lock.release()

    def _decide(self, snapshot: Snapshot) -> policy.Start | None:
        """Whose turn it would be on our device if it were free."""
        waits = snapshot.waits()
        if self.name == "cpu":  # parked workers have what they need
            waits = [replace(run, need_bytes=0) if run.run in self.kept else run for run in waits]
        if not waits:
            return None
        known = [
            replace(device, free_bytes=self._free_bytes(device.name))
            if device.name == self.name
            else self._with_turn(device, snapshot)
            for device in devices()
        ]
        for decision in policy.decide(waits, known, time.time()):
            if isinstance(decision, policy.Start) and decision.device == self.name:
                return decision
        return None

    def _with_turn(self, device: policy.Device, snapshot: Snapshot) -> policy.Device:
        turn = snapshot.turn(device.name)
        if turn is None and device.name != self.name and is_held(device.name):  # by another bench
            turn = policy.Turn(policy.Waiting("", 0, 0.0, pausable=False), 0.0, 0)
        return replace(device, turn=turn, free_bytes=None if turn else self._free_bytes(device.name))

    def _is_for_us(self, entry: Entry) -> bool:
        """Whether we may work on a run: not on another user's, nor on one that isn't ours and would be lost with us."""
        return entry.owner in (None, os.getuid()) and (not entry.own_only or entry.run in self.rota.wanted)

    def _free_bytes(self, name: str) -> int | None:
        """What a run that begins now can have of a device's memory; what is kept for others can be given back."""
        if name != "cpu":
            return free_card_bytes().get(name)
        kept = sum(supervisor.expendable_bytes() for supervisor in self.kept.values())
        return psutil.virtual_memory().available + kept

    def _make_room(self, need_bytes: int) -> None:
        """Let go of kept processes, longest kept first, until a run that begins now has its memory."""
        for run in [run for run, supervisor in self.kept.items() if supervisor.expendable]:
            if psutil.virtual_memory().available >= need_bytes:
                return
            self._let_go(run)

    def _turn(self, start: policy.Start) -> bool:
        run = start.run
        try:
            supervisor = self.kept.pop(run, None) or self.rota.prepare(self.record, run)
        except RunBusy:
            return self._refuse(run)
        # Its method has changed, its capture is gone, its folder isn't ours …
        except (TurntableError, OSError) as error:
            return self._pass_over(run, str(error))
        self._refused.pop(run, None)
        # Seen again with the run's own lock in hand: on another device it may have had its turn, or its user a wish.
        entry = self.queue.snapshot().entries.get(run)
        if entry is None or entry.state is State.PAUSED or entry.wish not in (None, RELEASE):
            if supervisor.kept:
                self.kept[run] = supervisor  # what is wished of it is done at the next look
            else:
                supervisor.close()
            return False
        if not supervisor.kept:
            self.queue.note_pausing(run, None, True)
        if entry.wish == RELEASE:
            self.queue.take_back(run, RELEASE)
        if entry.kept_on is not None:
            self.queue.note_kept(run, None)
        if self.name == "cpu" and not supervisor.kept:
            self._make_room(entry.need_bytes)
        self.rota.own.add(run)
        self.queue.take_lease(self.name, run, self.rota.who, start.priority)
        self.lock.say(Holder(str(self.rota.bench), run, os.getuid(), self.rota.who))
        began = time.monotonic()
        device = next(device for device in devices() if device.name == self.name)
        try:
            given = Grant(
                device,
                self.lock.descriptor,
                stop=lambda: self._stop(supervisor, run, began),
                keep=self._may_keep,
                tell=lambda how, pausable: self.queue.note_pausing(run, how, pausable),
            )
            state = supervisor.take_turn(given)
            if state is State.PAUSED:
                self.queue.take_back(run, PAUSE)
            if state in (State.QUEUED, State.PAUSED) and supervisor.kept:
                self.kept[run] = supervisor
                if not supervisor.expendable:
                    self.queue.note_kept(run, self.name)
            if state is State.DONE:
                self.queue.learn(run, self.name, device.memory_bytes or 0)
        except CannotGoOn as error:
            return self._pass_over(run, str(error))
        finally:
            if run not in self.kept:
                supervisor.close()
                self.rota.own.discard(run)
            self.queue.drop_lease(self.name)
        return True

    def _refuse(self, run: str) -> bool:
        """Another supervisor keeps the run's process. It may have its device free before ours; if not, it lets it go."""
        self._refused[run] = self._refused.get(run, 0) + 1
        if self._refused[run] > LONG_REFUSED:
            self._refused.pop(run)
            self._pass_over(run, f"Run {run} is being worked on by another turntable; wait for that one.")
        elif self._refused[run] % 2 == 0:
            self.queue.ask_to_release(run)
        self.lock.let_others_in()
        return False

    def _pass_over(self, run: str, why: str) -> bool:
        """Nobody can work on a run: say so where all supervisors see it, and go on with the others."""
        self.queue.note_fault(run, why)
        self.rota.watcher.note(
            f"{why} (Until that is mended, {run} is passed over; turntable cancel {run} ends it.)"
        )
        return False

    def _stop(self, supervisor: Supervisor, run: str, began: float) -> Stop | None:
        """Why the turn of ``run`` should end now."""
        if self.rota.stopping is not None:
            return self.rota.stopping
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return None
        self._looked = now
        if self.name != "cpu" and now - self._weighed > WEIGH_EVERY_S:
            self._weighed = now
            self._weigh(supervisor)
        snapshot = self.queue.snapshot()
        self._tidy(snapshot)
        entry = snapshot.entries.get(run)
        if entry is None:
            return None
        if entry.wish in (PAUSE, CANCEL):
            return Stop(entry.wish)
        known = [self._with_turn(device, snapshot) for device in devices()]
        if (free := self._free_bytes(self.name)) is not None:
            # Nobody is asked to make room for one that wouldn't fit even then.
            free += supervisor.expendable_bytes() if self.name == "cpu" else supervisor.device_bytes
            known = [replace(d, free_bytes=free) if d.name == self.name else d for d in known]
        for decision in policy.decide(snapshot.waits(), known, time.time()):
            if isinstance(decision, policy.End) and decision.run == run:
                return Stop(decision.why)
        used = entry.quantum_s is not None and now - began >= entry.quantum_s
        return Stop.QUANTUM if used and entry.pausable and self.lock.others_wait() else None

    def _weigh(self, supervisor: Supervisor) -> None:
        """See how much of the card's memory a run has."""
        with contextlib.suppress(TurntableError):  # the driver can't be asked: the need stays unknown
            used = gpu_processes(int(self.name.partition(":")[2]))
            supervisor.note_device_memory(sum(used.get(pid, 0) for pid in supervisor.pids()))

    def _may_keep(self) -> bool:
        """Whether a worker may stay in memory between turns. Not on a card: it would keep its memory there."""
        if self.rota.stopping is not None or self.name != "cpu":
            return False
        memory = psutil.virtual_memory()
        return memory.available > SPARE_MEMORY * memory.total

    def _tidy(self, snapshot: Snapshot) -> None:
        """Do what users wish of the runs that are kept, and give memory back where it has become short."""
        for run, supervisor in list(self.kept.items()):
            entry = snapshot.entries.get(run)
            if entry is None or entry.wish == CANCEL:
                if entry is not None:
                    supervisor.settle(State.CANCELLED, GIVEN_UP)
                self._let_go(run)
            elif entry.wish == PAUSE and entry.state is State.QUEUED:
                supervisor.settle(State.PAUSED, PAUSE)
                self.queue.take_back(run, PAUSE)
                if not supervisor.kept:
                    self._let_go(run)
            elif entry.wish == RESUME:  # or somebody else has resumed it already
                if entry.state is State.PAUSED:
                    supervisor.settle(State.QUEUED, RESUME)
                self.queue.take_back(run, RESUME)
            elif supervisor.expendable and (entry.wish == RELEASE or not self._may_keep()):
                self._let_go(run)
                self.queue.take_back(run, RELEASE)
        held = {lease.run for lease in snapshot.leases.values()}
        for entry in snapshot.entries.values():
            # Left by a command that was killed while it waited for its wish to be granted.
            if entry.wish is not None and entry.run not in held and entry.run not in self.kept:
                grant(RunFolder(self.rota.bench / "runs" / entry.run), self.record, entry.wish)

    def _let_go(self, run: str) -> None:
        supervisor = self.kept.pop(run)
        supervisor.close()
        self.queue.note_pausing(run, None, True)
        if not supervisor.expendable:
            self.queue.note_kept(run, None)
        self.rota.own.discard(run)

    def _look_at_holder(self, snapshot: Snapshot) -> None:
        """Somebody holds the device that we want. Wait, but not for the dead."""
        lease = snapshot.leases.get(self.name)
        holder = self.lock.holder()
        ours = holder is not None and holder.bench == str(self.rota.bench)
        self.lock.wait_in_line(not ours)
        mark = (holder, lease.heartbeat if lease else None)
        if mark != self._holder_seen[0]:
            self._holder_seen = (mark, time.monotonic())
            return
        seen_still_s = time.monotonic() - self._holder_seen[1]
        if seen_still_s > NEWS_S and not self._said_busy:
            self._said_busy = True
            of = f" of {holder.bench}" if holder and not ours else ""
            whose = f" ({holder.run}{of})" if holder else ""
            self.rota.watcher.note(f"Another turntable holds {self.name}{whose}; waiting for a turn …")
        if holder is None:
            return
        if alive(holder.supervisor) is False and seen_still_s > DEAD_FOR_S:
            self._clear_up(holder, snapshot)
        elif lease is not None and lease.expired and seen_still_s > SEEN_STILL_S:
            self.rota.watcher.note(
                f"The turntable that holds {self.name} (process {lease.who.pid}) has said nothing for too long: ending it"
            )
            with contextlib.suppress(PermissionError, ProcessLookupError):
                if alive(lease.who):
                    os.kill(lease.who.pid, signal.SIGKILL)
            self._holder_seen = (None, 0.0)

    def _succeed_the_dead(self, snapshot: Snapshot) -> None:
        """We have the device's lock. If who had it before died with it, what he left behind may use the device still."""
        holder = self.lock.holder()
        if holder is not None:
            self._clear_up(holder, snapshot)
        if any(lease.device == self.name for lease in self.queue.leases()):
            self.queue.drop_lease(self.name)

    def _clear_up(self, holder: Holder, snapshot: Snapshot) -> None:
        """Kill what a dead supervisor's workers have left behind: it holds the device still."""
        last = Path(holder.bench) / "runs" / holder.run
        left = [last]
        if holder.bench == str(self.rota.bench):
            left += [self.rota.bench / "runs" / run for run in snapshot.entries]
        else:  # whichever run of that bench it kept: its queue isn't ours to read
            left += [path.parent for path in Path(holder.bench).glob("runs/*/lock")]
        for path in left:
            folder = RunFolder(path)
            with contextlib.suppress(OSError):
                # What the lock file says may be anybody's invention: only folders of our own tell us whom to kill.
                if path.stat().st_uid != os.getuid() or (lock := folder.lock("supervisor.lock")) is None:
                    continue
                with lock:
                    rest = folder.lock()
                    # The one that had the device is looked through in any case: a child may have closed its descriptors.
                    if rest is None or path == last:
                        kill_leftovers(folder)
                    if rest is not None:
                        rest.close()
        self._holder_seen = (None, 0.0)


class Onlooker:
    """Tells a watcher how runs are going that are not in our hands, from what the record says of them."""

    EVERY_S = 1.0

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._looked = 0.0
        self._seen: dict[str, State] = {}
        self._said: dict[str, str] = {}

    def look(self, snapshot: Snapshot, entries: Sequence[Entry]) -> None:
        """Look at the runs that somebody else has, or nobody."""
        if time.monotonic() - self._looked < self.EVERY_S:
            return
        self._looked = time.monotonic()
        for entry in entries:
            before = self._seen.get(entry.run)
            if entry.state is State.PAUSED and before is not State.PAUSED:
                self._watcher.note(
                    f"{entry.run} is paused; turntable resume {entry.run} lets it go on (Ctrl-C ends the waiting)"
                )
            elif entry.state is State.RUNNING:
                if before is not State.RUNNING:
                    self._watcher.run_started(entry.run, entry.fraction)
                self._watcher.run_progress(entry.run, entry.fraction, {"steps": entry.steps}, {})
            elif entry.state is State.QUEUED:
                self._say_why(snapshot, entry)
            self._seen[entry.run] = entry.state

    def _say_why(self, snapshot: Snapshot, entry: Entry) -> None:
        """Say once why a run waits that could have no device even if all were free."""
        run = snapshot.waiting(entry)
        why = policy.why_none(run, devices())
        if why is not None and self._said.get(entry.run) != why:
            self._said[entry.run] = why
            self._watcher.note(f"{entry.run} waits: {why}")


def pause_abandoned(bench: Path, record: Record, queue: Queue, runs: Sequence[str]) -> None:
    """Pause the runs that nobody answers for any more: nobody would go on with them until they are asked for again."""
    entries = queue.snapshot().entries
    for run in runs:
        entry = entries.get(run)
        if entry is None or entry.state is State.PAUSED or queue.answering(run):
            continue
        folder = RunFolder(bench / "runs" / run)
        lock = folder.lock("supervisor.lock")
        if lock is None:  # somebody else's supervisor is at work on it
            continue
        with lock:
            settle(folder, record, State.PAUSED, Stop.INTERRUPT.value)
