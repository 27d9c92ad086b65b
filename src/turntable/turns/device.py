"""Devices: what runs share, one run at a time, whoever's they are.

A device is held by a kernel lock that the worker inherits, on a file that all benches and users of the machine share: the
lock goes when the last process that has it dies, however that happens, and not before. The file's text says who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import TurntableError
from . import policy
from .identity import Who

PLACES = ("/run/lock", "/tmp")
"""Where all users of a machine may write; the first that is there is used, unless $TURNTABLE_LOCKS names another."""


LOOK_EVERY_S = 0.1
"""How often those who wait for something look whether it has come."""


def check_device(name: str) -> str:
    """The device wish called ``name``: ``cpu``, ``cuda`` (any card) or ``cuda:<number>``.

    Raises:
        TurntableError: another name.
    """
    if name in ("cpu", "cuda") or re.fullmatch(r"cuda:(0|[1-9][0-9]{0,2})", name):
        return name
    raise TurntableError(f"A device is cpu, cuda or cuda:<number>, not {name!r}.")


def processor() -> policy.Device:
    """The device ``cpu``."""
    return policy.Device("cpu", "cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@lru_cache(maxsize=1)
def devices() -> tuple[policy.Device, ...]:
    """The devices of this machine, without who holds them: the processor, and the cards that NVML or nvidia-smi lists."""
    found = [processor()]
    for index, (name, size) in enumerate(card_sizes()):
        found.append(policy.Device(f"cuda:{index}", f"{name} ({size / 1e9:.0f} GB)", size))
    return tuple(found)


def card_sizes() -> list[tuple[str, int]]:
    """Every NVIDIA card's name and memory in bytes, in the driver's order."""
    from ..machine import graphics_cards
    from .cuda import cards

    if found := [(card.name, card.memory_bytes) for card in cards()]:
        return found
    for line in graphics_cards():  # without the package that asks the driver
        name, size, _ = (part.strip() for part in line.split(","))
        found.append((name, int(float(size.split()[0]) * 2**20)))
    return found


@lru_cache(maxsize=1)
def _card_memory(second: int) -> dict[str, int]:
    from .cuda import cards

    return {f"cuda:{card.index}": card.free_bytes for card in cards()}


def free_card_bytes() -> dict[str, int]:
    """By card, how many bytes of its memory are free; at most a second old, since the driver is asked often."""
    return _card_memory(int(time.monotonic()))


def fitting(wish: str) -> list[str]:
    """The names of this machine's devices that a wish allows."""
    return [device.name for device in devices() if policy.allows(wish, device)]


def locks_folder() -> Path:
    """The folder of the machine's device locks; made if it isn't there, for all users.

    Raises:
        TurntableError: it can't be made.
    """
    named = os.environ.get("TURNTABLE_LOCKS")
    places = [Path(named)] if named else [Path(place) / "turntable" for place in PLACES]
    for folder in places:
        with contextlib.suppress(OSError):
            if not folder.is_dir():
                folder.mkdir(parents=bool(named), exist_ok=True)
                folder.chmod(0o1777)
            for _ in range(5):  # another user may have made it in this moment, and not opened it to all yet
                if os.access(folder, os.W_OK | os.X_OK):
                    return folder
                time.sleep(LOOK_EVERY_S)
    raise TurntableError(
        f"Devices are shared through lock files, but {places[-1]} can't be made or written. "
        "Set TURNTABLE_LOCKS to a folder that everybody who shares the device can write to."
    )


@dataclass(frozen=True)
class Holder:
    """What a device's lock file says of who holds it, or died with it."""

    bench: str
    run: str
    user: int
    supervisor: Who

    @classmethod
    def from_json(cls, data: Any) -> Holder:
        """What the file says.

        Raises:
            KeyError, TypeError, ValueError: it says something else; anybody may write to it.
        """
        who = data["supervisor"]
        found = cls(data["bench"], data["run"], data["user"], Who(who["pid"], who["started"], who["boot"]))
        texts, numbers = (found.bench, found.run, who["boot"]), (found.user, who["pid"], who["started"])
        if not (
            all(type(text) is str and "\0" not in text for text in texts)
            and all(type(number) is int and number >= 0 for number in numbers)
            and 0 < who["pid"] < 2**31
        ):
            raise ValueError(f"not a holder: {data!r}")
        return found


class DeviceLock:
    """The kernel lock of one device; see the module's text. Not to be shared between threads."""

    def __init__(self, name: str) -> None:
        """Open the lock's file, without taking the lock.

        Raises:
            TurntableError: it can't be opened.
        """
        self.name = name
        folder = locks_folder()
        self.path = folder / f"{name.replace(':', '-')}.lock"
        self._file = _open_shared(self.path)
        self._waiters_path = self.path.with_suffix(".waiting")
        self._waiters = _open_shared(self._waiters_path)
        self.held = False

    @property
    def descriptor(self) -> int:
        """To be inherited by workers: the lock then lasts until they are dead too."""
        return self._file

    def take(self) -> bool:
        """Take the device if nobody holds it; whether we have it now."""
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if _is_at(self._file, self.path):
                self.held = True
                return True
            os.close(
                self._file
            )  # somebody has removed the file: a lock on what is left of it would bind nobody
            self._file = _open_shared(self.path)

    def is_held(self) -> bool:
        """Whether anybody holds it; not to be asked by who does."""
        try:
            fcntl.flock(
                self._file, fcntl.LOCK_SH | fcntl.LOCK_NB
            )  # shared, so that those who ask don't see each other
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def say(self, holder: Holder) -> None:
        """Write down who holds it, for those who wait."""
        text = json.dumps(asdict(holder)).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)

    def holder(self) -> Holder | None:
        """Who holds it, or died with it; None if nobody has said so."""
        try:
            return Holder.from_json(json.loads(os.pread(self._file, 1 << 16, 0)))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def release(self) -> None:
        """Give the device up, for the workers that have inherited the lock as well.

        What :meth:`say` wrote goes: whoever takes a lock whose file still names somebody knows that this one died with it.
        """
        if self.held:
            os.ftruncate(self._file, 0)
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self.held = False

    def wait_in_line(self, waits: bool) -> None:
        """Let the holder know that we, of another bench, want it (or no longer do)."""
        self._find_waiters()
        fcntl.flock(self._waiters, fcntl.LOCK_SH if waits else fcntl.LOCK_UN)

    def others_wait(self) -> bool:
        """Whether somebody of another bench wants it."""
        self._find_waiters()
        try:
            fcntl.flock(self._waiters, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._waiters, fcntl.LOCK_UN)
        return False

    def _find_waiters(self) -> None:
        """Open the file anew if somebody has removed it: whoever opens it now gets another."""
        if not _is_at(self._waiters, self._waiters_path):
            os.close(self._waiters)
            self._waiters = _open_shared(self._waiters_path)

    def let_others_in(self) -> None:
        """Give the device up for long enough that whoever waits for it gets it: they look several times a second."""
        self.release()
        time.sleep(LOOK_EVERY_S * 3)

    def close(self) -> None:
        """Give the device up and forget it."""
        self.release()
        os.close(self._file)
        os.close(self._waiters)


def is_held(name: str) -> Holder | bool:
    """Who holds a device, as far as they have said; True if somebody does who hasn't, False if nobody does."""
    lock = DeviceLock(name)
    try:
        return (lock.holder() or True) if lock.is_held() else False
    finally:
        lock.close()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _open_shared(path: Path) -> int:
    # Without O_CREAT first: the kernel refuses O_CREAT on a file that another user made in a folder like /tmp.
    for flags in (0, os.O_CREAT):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o666)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TurntableError(
                f"The device lock {path} can't be opened ({error.strerror}); remove it, or set TURNTABLE_LOCKS."
            ) from error
        with contextlib.suppress(OSError):  # another user's
            os.fchmod(descriptor, 0o666)
        return descriptor
    raise TurntableError(f"The device lock {path} can't be made; set TURNTABLE_LOCKS to another folder.")
