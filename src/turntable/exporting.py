"""Exporting what a run has made: its method, loaded from the newest checkpoint, writes the files itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .bench import Bench
from .environments import place_of
from .errors import TurntableError, disk_error
from .files import open_beneath, replacing
from .jobs import method_of
from .record import State
from .run import Asked, RunFolder
from .tasks.views import ViewsTask
from .turns import checkpoint
from .turns.process import Quarters, WorkerFailed, WorkerProcess
from .turns.python_run import start_method
from .turns.watcher import Watcher

PATIENCE_S = 600.0


@dataclass(frozen=True)
class Loaded:
    """A run's method in a worker of its own, as its newest checkpoint has it.

    Args:
        worker: takes messages: ``export``, ``render``.
        scratch: a folder that it may write to, and that is gone afterwards.
        asked: what was asked of the run.
        saved: the checkpoint.
    """

    worker: WorkerProcess
    scratch: Path
    asked: Asked
    saved: checkpoint.Checkpoint


def newest_checkpoint(bench: Bench, run: str) -> tuple[RunFolder, checkpoint.Checkpoint]:
    """A run's folder, and the checkpoint from which its method is loaded.

    Raises:
        TurntableError: there is no such run, it is a program's, or it has no checkpoint.
    """
    folder = bench.run_folder(run)
    method = method_of(bench, folder.asked())
    if method.is_program:
        raise TurntableError(
            f"Only Python methods export; {method.name} is a program, and what it made lies in "
            f"{folder.path / 'program' / 'out'}."
        )
    saved, _ = checkpoint.newest(folder.path / "checkpoint")
    if saved is None:
        raise TurntableError(f"Run {run} has no checkpoint to export yet; let it run first (turntable run).")
    return folder, saved


@contextmanager
def loaded(bench: Bench, run: str, watcher: Watcher, walls: bool = True) -> Iterator[Loaded]:
    """Load a run's method from its newest checkpoint, in a process of its own.

    Args:
        bench: where the run is.
        run: its id.
        watcher: told how it goes.
        walls: whether the method is walled in, where that can be done.

    Raises:
        TurntableError: as :func:`newest_checkpoint`, or somebody works on the run, or the method fails.
    """
    folder, saved = newest_checkpoint(bench, run)
    lock = folder.lock()
    if lock is None:
        raise TurntableError(f"Run {run} is being worked on by another turntable; wait for that one.")
    with lock, _scratch(folder) as scratch:
        room = _Room(folder.path, scratch, folder.log_path, bench.row(run).device, (lock.fileno(),))
        with _in_worker(bench, folder, saved, room, watcher, walls) as method:
            yield method


@contextmanager
def loaded_beside(bench: Bench, run: str, watcher: Watcher, walls: bool = True) -> Iterator[Loaded]:
    """The same beside whoever works on the run, and goes on with it meanwhile: see :func:`loaded`.

    The newest checkpoint is set aside before it is loaded, and the run's lock is left alone. A run that holds a card
    needs the card's memory itself: its method is loaded on the processor then.

    Raises:
        TurntableError: as :func:`newest_checkpoint`, or the method fails, or it is for cards only and the run holds one.
    """
    folder, _ = newest_checkpoint(bench, run)
    with _scratch(folder) as scratch:
        saved = checkpoint.set_aside(folder.path / "checkpoint", scratch / "checkpoint")
        if saved is None:
            raise TurntableError(f"Run {run} has no whole checkpoint at this moment; try again.")
        (scratch / "out").mkdir()
        # It lives in another folder than the run's: whoever ends the run's processes knows them by that. Its lines are in
        # another log: among those of the training they would be taken for it.
        log_path = folder.path / "view.log"
        room = _Room(scratch, scratch / "out", log_path, _device_beside(bench, folder))
        with _in_worker(bench, folder, saved, room, watcher, walls) as method:
            yield method


@dataclass(frozen=True)
class _Room:
    """Where a method is loaded.

    Args:
        home: the folder that it lives in, and can read.
        scratch: what it may write to.
        log_path: where its output goes.
        device: what it computes on.
        locks: descriptors that stay open as long as it lives.
    """

    home: Path
    scratch: Path
    log_path: Path
    device: str
    locks: tuple[int, ...] = ()


@contextmanager
def _scratch(folder: RunFolder) -> Iterator[Path]:
    with TemporaryDirectory(dir=folder.path, prefix=".export-") as scratch:
        yield Path(scratch)


@contextmanager
def _in_worker(
    bench: Bench, folder: RunFolder, saved: checkpoint.Checkpoint, room: _Room, watcher: Watcher, walls: bool
) -> Iterator[Loaded]:
    asked = folder.asked()
    method = method_of(bench, asked)
    task = ViewsTask(bench.capture(asked.capture), {})
    quarters = Quarters(
        room.home,
        place_of(bench, method, walls, watcher.note),
        read=(task.folder,),
        write=(room.scratch,),
        hidden=task.held_out_files(),
        device=room.device,
    )
    try:
        with room.log_path.open("ab") as log:
            worker = WorkerProcess(quarters, log, room.locks, PATIENCE_S)
            try:
                worker.greet()
                start_method(worker, asked, method, room.device, saved, task.inputs())
                yield Loaded(worker, room.scratch, asked, saved)
                worker.stop()
            finally:
                worker.end()
    except WorkerFailed as failure:
        raise TurntableError(
            f"Run {folder.id} can't be exported: {failure}. See {room.log_path}."
        ) from failure


def _device_beside(bench: Bench, folder: RunFolder) -> str:
    row = bench.row(folder.id)
    if row.state is not State.RUNNING or row.device == "cpu":
        return row.device
    if "cpu" in method_of(bench, folder.asked()).devices:
        return "cpu"
    raise TurntableError(
        f"Run {folder.id} holds {row.device}, and its method can't be loaded on the processor: wait until its turn is over."
    )


def export(bench: Bench, run: str, form: str, out: Path | None, watcher: Watcher, walls: bool = True) -> Path:
    """Write a run's result as a file of the kind ``form`` (its suffix without the dot).

    Args:
        bench: where the run is.
        run: its id.
        form: ``ply``, ``spz`` or whatever the method exports.
        out: where to; ``<run>.<form>`` in the working folder if None.
        watcher: told how it goes.
        walls: whether the method is walled in, where that can be done.

    Returns:
        The file written.

    Raises:
        TurntableError: no such run, no checkpoint yet, or the method writes no such file.
    """
    newest_checkpoint(bench, run)
    target = checked_target(out, f"{run}.{form}")
    try:
        with loaded(bench, run, watcher, walls) as method:
            watcher.run_doing(run, "exporting", 0, 0)
            method.worker.send("export", folder=str(method.scratch))
            files = method.worker.await_("exported")["files"]
            matching = [name for name in files if str(name).endswith(f".{form}")]
            if not matching:
                kinds = ", ".join(sorted({Path(name).suffix[1:] for name in files})) or "nothing"
                raise TurntableError(
                    f"Method {method.asked.method} exports {kinds}, not {form!r}; choose with --as."
                )
            with (
                replacing(target) as aside,
                open_beneath(method.scratch, matching[0]) as made,
                aside.open("wb") as copy,
            ):
                shutil.copyfileobj(made, copy, 1 << 20)
    except OSError as error:
        raise disk_error(error, str(target)) from error
    return target


def checked_target(out: Path | None, otherwise: str) -> Path:
    """Where a file goes: ``--out``, or ``otherwise`` in the working folder.

    Raises:
        TurntableError: its folder isn't there, or it is a folder itself.
    """
    target = (out or Path(otherwise)).expanduser().resolve()
    if not target.parent.is_dir():
        raise TurntableError(f"--out needs a folder that exists; there is no {target.parent}.")
    if target.is_dir():
        raise TurntableError(f"--out names a file, but {target} is a folder.")
    return target
