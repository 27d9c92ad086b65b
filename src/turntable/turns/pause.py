"""Pausing a program that knows nothing of it, so that another run can have its device.

The first rung of the ladder isn't here: a worker of ours stops at a step's end, saves, and leaves. For any other program:

1. on a graphics card, the driver moves the process's memory there to the host (:mod:`.cuda`); only when the card has been
   seen to be free of it is the process frozen. Freezing alone would leave the memory where it is: that is no pause.
2. on the processor, it is frozen: no time of the processor from then on. Where there is swap, its memory is given up too.
3. where none of this works, it runs to its end, and the reason is told.
"""

from __future__ import annotations

import contextlib

from .cuda import CannotCheckpoint, CudaPause, NoRoom, why_not
from .family import CannotFreeze, Family
from .swap import page_out

WORTH_SAYING_BYTES = 1_000_000


class CannotPause(Exception):
    """Nothing works here: the message says why, one line."""


class Pause:
    """The pausing of one run's processes, on the device that it began on."""

    def __init__(self, family: Family, device: str) -> None:
        self._family = family
        self._card = int(device.partition(":")[2]) if device.startswith("cuda:") else None
        self._cuda = CudaPause() if self._card is not None else None
        self._on_host: list[int] = []

    def pause(self) -> str:
        """Make the processes leave their device and use no processor time.

        Returns:
            How, in words.

        Raises:
            CannotPause: no way works; they run on as before.
        """
        words: list[str] = []
        if self._card is not None and self._cuda is not None:
            if (reason := why_not(self._card)) is not None:
                raise CannotPause(reason)
            try:
                pids = [member.pid for member in self._family.members()]
                self._on_host = self._cuda.checkpoint(pids, self._card)
            except CannotCheckpoint as error:
                raise CannotPause(str(error)) from error
            if self._on_host:
                words.append(f"memory of cuda:{self._card} moved to the host")
        try:
            words.append(f"frozen ({self._family.freeze()})")
        except CannotFreeze as error:
            self._restore()
            raise CannotPause(str(error)) from error
        given_up = page_out(member.pid for member in self._family.members())
        if given_up > WORTH_SAYING_BYTES:
            words.append(f"{given_up / 1e9:.2f} GB given up to swap")
        else:
            words.append("its memory stays where it is (no swap to give it up to)")
        return ", ".join(words)

    def resume(self) -> None:
        """Let the processes go on where they were.

        Raises:
            NoRoom: the card has none for what they had there; they stay paused, and it may be tried again.
            CannotRestore: the driver can't bring some of them back; the others run.
        """
        self._family.thaw()
        try:
            self._restore()
        except NoRoom:
            with contextlib.suppress(CannotFreeze):
                self._family.freeze()
            raise

    def card_bytes(self) -> int:
        """How much memory of their card the paused processes need to go on, in bytes."""
        return self._cuda.needs_bytes(self._card) if self._cuda is not None and self._card is not None else 0

    def _restore(self) -> None:
        if self._cuda is not None:
            self._cuda.restore(self._on_host)
        self._on_host = []
